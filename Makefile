# The commands of the README. They create the environment that they need; only Python ≥ 3.11 must be installed.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

# The evaluation encoder of the quickstart, if it is available.
IDGEN_SHARED ?= ../shared
EVAL_ENCODER ?= $(wildcard $(IDGEN_SHARED)/models/mobilefacenet_eval.onnx)

.PHONY: install quickstart test check docs clean

# constraints.txt has the version of torch that the tests ran with. pip installs a CPU build if the index has one.
# Python compiles a module when it is first imported; to compile all at once takes a minute.
$(BIN)/.installed: pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --no-compile --constraint constraints.txt --editable ".[dev]"
	touch $@

install: $(BIN)/.installed

quickstart: $(BIN)/.installed
	$(BIN)/python examples/quickstart.py $(if $(EVAL_ENCODER),--eval-encoder imagenet:$(EVAL_ENCODER))

# Each process runs one file after the other, in the order of `tests/conftest.py`: slow files first.
test: $(BIN)/.installed
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

# pyright holds the types of torch, diffusers and transformers: with Node's usual 4 GB of heap it forgets them and starts
# again, which doubles its time.
check: export NODE_OPTIONS = --max-old-space-size=8192
check: $(BIN)/.installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict --quiet

docs: $(BIN)/.installed
	$(BIN)/mkdocs serve

clean:
	rm -rf $(VENV) outputs dist .pytest_cache .ruff_cache
