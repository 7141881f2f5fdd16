"""What a picture and an update cost in operations and memory: counted and not timed, so the same on every machine.

`python -m tests.test_cost` writes the present counts to `costs.json`: do it where something became cheaper, or is
meant to cost more.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from idgen.training.config import LossConfig
from tests.components import call_arguments, make_adapter, make_pipeline, seeded
from tests.training import test_rollout
from tests.training.runs import RandomPeople, make_step

FILE = Path(__file__).with_name("costs.json")
ALLOWED = 1.005
"""Factor on the stored counts. A second forward of the UNet is more than that in every case."""


def versions() -> dict[str, str]:
    """What the counts depend on."""
    return {"torch": torch.__version__.partition("+")[0], "diffusers": diffusers.__version__}


class Allocations(TorchDispatchMode):
    """Counts operations and the bytes of tensors that they make."""

    def __init__(self) -> None:
        super().__init__()
        self.operations, self.bytes = 0, 0

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {x.untyped_storage().data_ptr() for x in tree_leaves((args, kwargs)) if isinstance(x, torch.Tensor)}
        found = function(*args, **(kwargs or {}))
        made = [x.untyped_storage() for x in tree_leaves(found) if isinstance(x, torch.Tensor)]
        self.operations += 1
        self.bytes += sum(each.nbytes() for each in made if each.data_ptr() not in given)
        return found


def bare_picture() -> Callable[[], Any]:
    pipe = make_pipeline()
    return lambda: pipe(**call_arguments())


def picture() -> Callable[[], Any]:
    pipe = make_pipeline()
    pipe.load_id_adapter(make_adapter(pipe.unet))
    return lambda: pipe(id_embeds=torch.ones(1, 8), **call_arguments())


def denoising_update() -> Callable[[], Any]:
    step = make_step(losses=LossConfig.only(identity=1.0, preservation=0.1))
    return lambda: update(step)


def reward_update() -> Callable[[], Any]:
    step = test_rollout.make_step("draft", 5.0)
    return lambda: update(step)


def update(step: Any) -> None:
    with step:
        step(RandomPeople(2).make(0), seeded(1)).total.backward()


CASES = {case.__name__: case for case in (bare_picture, picture, denoising_update, reward_update)}


def cost(name: str) -> dict[str, int]:
    """The counts of a case, after a first run in which caches are filled."""
    run = CASES[name]()
    run()
    with FlopCounterMode(display=False) as flops, Allocations() as allocations:
        run()
    return {"operations": allocations.operations, "bytes": allocations.bytes, "flops": flops.get_total_flops()}


@pytest.mark.parametrize("name", CASES)
def test_nothing_costs_more_than_before(name: str) -> None:
    stored = json.loads(FILE.read_text())
    if versions() != stored["versions"]:
        pytest.skip(f"the counts are those of {stored['versions']}")
    found = cost(name)
    dearer = {kind: (stored[name][kind], n) for kind, n in found.items() if n > ALLOWED * stored[name][kind]}
    assert not dearer, f"stored and found: {dearer}; if it is meant so, run python -m tests.test_cost"


if __name__ == "__main__":
    counts = {"versions": versions(), **{name: cost(name) for name in CASES}}
    FILE.write_text(json.dumps(counts, indent=2) + "\n")
    sys.stdout.write(FILE.read_text())
