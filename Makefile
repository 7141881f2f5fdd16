# The two commands of the README. Both make the environment they need; nothing but Python ≥ 3.11 has to be there.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# A second face encoder judges the quickstart's pictures where one is at hand.
IDGEN_SHARED ?= ../shared
JUDGE ?= $(wildcard $(IDGEN_SHARED)/models/mobilefacenet_eval.onnx)

.PHONY: quickstart test check docs clean

# One place says which torch: the version that the tests ran with. pip takes a CPU build where one is at hand.
$(BIN)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $@

quickstart: $(BIN)/.installed
	$(BIN)/python examples/quickstart.py $(if $(JUDGE),--eval-encoder imagenet:$(JUDGE))

# A process is given one file after the other, as `tests/conftest.py` puts them: those that take longest first.
test: $(BIN)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

check: $(BIN)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs: $(BIN)/.installed
	$(BIN)/mkdocs serve

clean:
	rm -rf $(VENV) outputs dist .pytest_cache .ruff_cache
