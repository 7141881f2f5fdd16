"""Importing `idgen` is quick, and changes diffusers' pipelines whichever of the two is imported first."""

from __future__ import annotations

import importlib
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from idgen.import_hook import after_import

CHANGED = "assert Pipeline.load_id_adapter and Pipeline.__call__.__wrapped__"


def run(code: str) -> None:
    """Run a program in a process of its own; its last line of an error is the reason of a failure."""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr.strip().splitlines()[-1]


@pytest.mark.parametrize("start", ["import idgen", "from idgen.cli import parse_command; parse_command(['generate'])"])
def test_nothing_slow_is_imported_at_first(start: str) -> None:
    run(f"import sys; {start}; slow = {{'torch', 'diffusers', 'numpy'}} & set(sys.modules); assert not slow, slow")


ORDERS = (
    "import idgen; from diffusers import StableDiffusionXLPipeline as Pipeline",
    "from diffusers import StableDiffusionXLPipeline as Pipeline; import idgen",
    "from idgen.pipelines.inpaint import LatentInpaintPipeline as Pipeline",
    "import idgen; from diffusers import StableDiffusionPipeline as Pipeline; "
    "from idgen.pipelines.from_pipe import wrap_auto_pipelines; wrap_auto_pipelines(); "
    "assert 'diffusers.pipelines.auto_pipeline' not in sys.modules; "
    "from diffusers import AutoPipelineForText2Image; assert AutoPipelineForText2Image.from_pipe.is_wrapped",
)

FORKS = f"""
import os, sys
import peft, torch._dynamo, transformers.models.auto.modeling_auto, transformers.models.clip.modeling_clip
import transformers.image_processing_utils, transformers.processing_utils
assert not {{"idgen", "diffusers"}} & {{*sys.modules}}
for order in {ORDERS!r}:
    child = os.fork()
    if not child:
        exec(order + {"; " + CHANGED!r})
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0, order
"""
"""Each order in a fork of a process that has imported what diffusers imports, which takes most of the time."""


def test_pipelines_are_changed_in_any_order_of_imports() -> None:
    run(FORKS)


def test_a_module_that_another_thread_is_importing_is_complete_before_the_action(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "slowly_imported.py").write_text("import time\ntime.sleep(0.5)\ncomplete = True\n")
    monkeypatch.syspath_prepend(tmp_path)
    thread = threading.Thread(target=importlib.import_module, args=["slowly_imported"])
    thread.start()
    while "slowly_imported" not in sys.modules:
        thread.join(0.01)
    seen = []
    after_import("slowly_imported", lambda: seen.append(sys.modules["slowly_imported"].complete))
    thread.join()
    assert seen == [True]


def test_names_are_found_at_first_use() -> None:
    import idgen

    for name in idgen.__all__:
        assert getattr(idgen, name) is not None
        assert name in dir(idgen)
    with pytest.raises(AttributeError, match="no attribute 'unknown'"):
        _ = idgen.unknown  # pyright: ignore[reportAttributeAccessIssue]
    assert callable(idgen.enroll)
