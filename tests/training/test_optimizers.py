"""Optimizers of other packages: used if installed, named in the error if not, and resumed."""

from __future__ import annotations

import json
import sys
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load, save

from idgen.errors import MissingDependencyError
from idgen.training.config import OptimizerConfig
from idgen.training.optimization import load_optimizer, make_optimizer, optimizer_tensors

PACKAGES: dict[Any, str] = {"adamw8bit": "bitsandbytes", "prodigy": "prodigyopt"}
Name = Literal["adamw", "adamw8bit", "prodigy"]


@pytest.mark.parametrize("name", PACKAGES)
def test_a_missing_package_is_named(name: Name, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, PACKAGES[name], None)
    with pytest.raises(MissingDependencyError, match=f"pip install {PACKAGES[name]}"):
        make_optimizer(OptimizerConfig(name=name), [torch.nn.Parameter(torch.zeros(1))])


def through_files(optimizer: torch.optim.Optimizer, other: torch.optim.Optimizer) -> None:
    """Copy the state of one optimizer to another through the form in checkpoints."""
    tensors, state = optimizer_tensors(optimizer)
    load_optimizer(other, load(save({n: t.contiguous() for n, t in tensors.items()})), json.loads(json.dumps(state)))


@pytest.mark.parametrize("name", ["adamw", *PACKAGES])
def test_it_trains_and_resumes(name: Name) -> None:
    if name in PACKAGES:
        pytest.importorskip(PACKAGES[name])
    settings = OptimizerConfig(name=name, learning_rate=1.0 if name == "prodigy" else 0.05, weight_decay=0.0)

    def start() -> tuple[torch.nn.Parameter, torch.optim.Optimizer]:
        weight = torch.nn.Parameter(torch.linspace(1, 2, 8192))  # bitsandbytes leaves small tensors in 32 bits
        return weight, make_optimizer(settings, [weight])

    def learn(weight: torch.nn.Parameter, optimizer: torch.optim.Optimizer, steps: int) -> None:
        for _ in range(steps):
            optimizer.zero_grad()
            weight.square().sum().backward()
            optimizer.step()

    weight, optimizer = start()
    learn(weight, optimizer, 10)
    again, other = start()
    through_files(optimizer, other)
    again.data.copy_(weight.data)
    learn(weight, optimizer, 10)
    learn(again, other, 10)
    assert torch.equal(again, weight)
    assert weight.square().mean() < torch.linspace(1, 2, 8192).square().mean()


def test_nested_state() -> None:
    """As bitsandbytes and Prodigy nest it; neither needs to be installed."""
    one, other = (torch.optim.SGD([torch.nn.Parameter(torch.zeros(4))], lr=0.1) for _ in range(2))
    (weight,) = one.param_groups[0]["params"]
    quantised = {"state1": torch.arange(4, dtype=torch.uint8), "maps": {"qmap1": torch.linspace(-1, 1, 16)}}
    one.state[weight] = {"step": 3, "quantised": quantised, "exp_avg": torch.ones(4)}
    one.param_groups[0]["d"] = torch.tensor(0.25)
    through_files(one, other)
    found = other.state[other.param_groups[0]["params"][0]]
    assert (found["step"], other.param_groups[0]["d"]) == (3, 0.25)
    assert torch.equal(found["exp_avg"], torch.ones(4))
    assert torch.equal(found["quantised"]["maps"]["qmap1"], quantised["maps"]["qmap1"])
    assert torch.equal(found["quantised"]["state1"], quantised["state1"])
