"""The words of `<id>` learn to do alone what the adapter's tokens do; `words_alone.py` is the same on a CPU."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..device import autocast, device
from .captured import Losses, Trained
from .person import Person
from .resident import Resident

SHOWN, STRANGER, EMPTY = 0.4, 0.5, 0.1
"""Shares of the samples with the adapter's tokens, with the identity of the sample before, and without a prompt."""


def words_update(data: Resident, given: Person, model: Person, trained: Trained, batch: int) -> Callable[[], Losses]:
    """Words and UNet learn the prediction of the model before this training, `given`, with the tokens, wherever the
    tokens are there or the prompt names the person; elsewhere they learn that of the base."""

    def update() -> Losses:
        drawn = data.batch(batch, 0.4)
        u = torch.rand(4, batch, device=device())
        noise, steps = torch.randn_like(drawn.latents), len(model.alphas)
        timesteps = (u[0].sqrt() * steps).long().clamp(max=steps - 1)  # the root of the largest number below 1 is 1
        empty, shown, stranger = (u[1] < EMPTY)[:, None], u[2] < SHOWN, (u[3] < STRANGER)[:, None]
        tokens, described = (torch.where(empty, data.nothing, said) for said in (drawn.tokens, drawn.described))
        named = (tokens != described).any(1)
        identity = torch.where(stranger, drawn.identity.roll(1, 0), drawn.identity)
        noisy = model.noised(drawn.latents, noise, timesteps)
        with torch.no_grad(), autocast():
            wanted = given(noisy, timesteps, described, identity, (shown | named).float()).float()
        with autocast():
            found = model(noisy, timesteps, tokens, identity, shown.float()).float()
        error = (found - wanted).square().mean((1, 2, 3))
        told = {"alone": of(error, named & ~shown), "kept": of(error, ~named)}
        return {**told, "norm": trained.step(error.mean())}

    return update


def of(error: torch.Tensor, samples: torch.Tensor) -> torch.Tensor:
    """Mean error of some samples, for the log."""
    return (error.detach() * samples).sum() / samples.sum().clamp(min=1)
