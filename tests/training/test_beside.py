"""A frozen adapter that gives the person beside the one that is trained."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch

from idgen.adapter.attention import IdentityBranch
from idgen.losses import LossConfig
from tests.components import make_adapter, seeded

from .runs import RandomPeople, make_step

PRESERVED = LossConfig.only(denoising=1, preservation=1)
ANNA = torch.randn(2, 8, generator=seeded(3))
BATCH = replace(RandomPeople(2).make(0), beside=ANNA)


def step_beside(**options: Any) -> Any:
    step = make_step(losses=PRESERVED, **options)
    beside = make_adapter(step.base.unet, seed=4).requires_grad_(False)
    beside.attach(step.base.unet)
    step._beside = [beside]
    return step


def losses_of(step: Any, batch: Any = BATCH) -> dict[str, torch.Tensor]:
    with step:
        found = step(batch, seeded(1))
        if found.total.requires_grad:
            found.total.backward()
    return {name: log.mean.detach() for name, log in found.terms.items()}


def test_losses_compare_with_the_person_without_what_is_trained() -> None:
    step = step_beside()
    for branch in step.adapter.branches.values():
        assert isinstance(branch, IdentityBranch)
        torch.nn.init.zeros_(branch.to_v.weight)  # so that the trained adapter has no effect
    of_anna = losses_of(step)
    assert of_anna["preservation"] < 1e-9, "the person is there with and without the trained adapter"
    of_bruno = losses_of(step, replace(BATCH, beside=-ANNA))
    assert not torch.equal(of_anna["denoising"], of_bruno["denoising"]), "the person has an effect"


def test_only_the_adapter_is_trained() -> None:
    step = step_beside()
    losses_of(step)
    assert all(weight.grad is not None for weight in step.parameters())
    assert all(weight.grad is None for weight in step.beside.parameters())
    assert not any(each is weight for each in step.parameters() for weight in step.beside.parameters())


def test_gradients_with_gradient_checkpointing_are_the_same() -> None:
    plain, saving = step_beside(), step_beside()
    saving.base.unet.enable_gradient_checkpointing()
    for step in (plain, saving):
        step.base.unet.train()
        losses_of(step)
    for one, other in zip(plain.parameters(), saving.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad)
