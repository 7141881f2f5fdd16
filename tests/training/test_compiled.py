"""A UNet that torch compiles in a training run."""

from __future__ import annotations

import torch
from torch._dynamo.utils import counters

from idgen.training.config import LossConfig
from tests.components import TO_COMPILE

from .runs import RandomPeople, make_step, run


def test_compiling_the_unet_changes_nothing() -> None:
    """There are two graphs, with and without the identity, for all updates; passes that are recorded stay eager."""
    torch.compiler.reset()
    counters["stats"].clear()
    batches = [RandomPeople(2).make(number) for number in range(2)]
    for loss in ("preservation", "increment"):
        eager, compiled = (make_step(unet=TO_COMPILE, losses=LossConfig.only(**{loss: 1.0})) for _ in range(2))
        compiled.base.unet.compile(backend="aot_eager", fullgraph=True)
        for batch in batches:
            torch.testing.assert_close(run(compiled, batch).values, run(eager, batch).values, rtol=1e-5, atol=1e-6)
        for weight, same in zip(compiled.parameters(), eager.parameters(), strict=True):
            torch.testing.assert_close(weight.grad, same.grad, rtol=1e-4, atol=1e-7)
    assert counters["stats"]["unique_graphs"] == 2
