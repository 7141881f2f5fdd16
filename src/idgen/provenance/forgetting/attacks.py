"""Attempts to bring a forgotten person back: changed embeddings, prompts, and fine-tuning."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from ...adapter import IdentityAdapter
from ...training.base import BaseModel
from .rows import Rows
from .tokens import ATTACK_STEPS, TokenForgetting

FINE_TUNING_STEPS = 50
"""As in FIUBench (arXiv 2411.03554)."""
FINE_TUNING_RATE = 1e-4


def attack_prompts(adapter: IdentityAdapter) -> tuple[str, ...]:
    """Prompts that name the person as strongly as the adapter allows."""
    who = "person <id>" if adapter.to_tokens.fuses_text else "<id>" if len(adapter.to_words) else "person"
    return f"a photo of a {who}", who, f"a portrait of a {who}, the face of a {who}"


Attack = Callable[[TokenForgetting, IdentityAdapter, int, Rows], Rows]
"""What is forgotten, the attacked adapter, the number of the person, and one row of another photo of the person → one
row."""


def _mixed(task: TokenForgetting, _: IdentityAdapter, __: int, row: Rows) -> Rows:
    return row.mixed(task.kept.draw(1, task.random), torch.tensor([0.3], device=row.embeds.device))


def _moved(task: TokenForgetting, _: IdentityAdapter, whom: int, row: Rows) -> Rows:
    share = torch.tensor([1.2 * task.people[whom].reach], device=row.embeds.device)
    return row.moved(row.step_towards(task.kept.draw(1, task.random), share))


def _noisy(task: TokenForgetting, _: IdentityAdapter, whom: int, row: Rows) -> Rows:
    noise = torch.randn(row.embeds.shape, generator=task.random).to(row.embeds)
    share = torch.tensor([task.people[whom].reach], device=row.embeds.device)
    return row.moved(row.step_towards(Rows(row.embeds + noise, row.features), share))


def _many(task: TokenForgetting, _: IdentityAdapter, whom: int, row: Rows) -> Rows:
    return Rows.cat([row, task.people[whom].rows[:-1]]).mean()


def _searched(task: TokenForgetting, adapter: IdentityAdapter, whom: int, row: Rows) -> Rows:
    person, space = task.people[whom], task.space
    return space.search(adapter, row, person.mean, task.own_vectors[whom], person.reach, ATTACK_STEPS)


ATTACKS: dict[str, Attack] = {
    "mixed with 30 % of another person": _mixed,
    "moved beyond the threshold": _moved,
    "noise": _noisy,
    "all photos": _many,
    "found by a search": _searched,
}
"""Attacks that change the embedding, by name."""


def fine_tuned(
    adapter: IdentityAdapter, pipeline: Any, people: Rows, latents: torch.Tensor, prompt: str, seed: int = 0
) -> IdentityAdapter:
    """Train an adapter for 50 steps of denoising on pictures of people, as somebody does who has kept some.

    Args:
        adapter: The adapter; it is not changed.
        pipeline: Pipeline of the base model, without an adapter.
        people: One row for each picture.
        latents: (n, channels, height, width), the pictures, as the UNet reads them.
        prompt: Prompt of all pictures.
        seed: Seed of the noise.
    """
    trained = copy.deepcopy(adapter).float().requires_grad_(True)
    weights = [*trained.parameters()]
    optimizer = torch.optim.AdamW(weights, FINE_TUNING_RATE)
    random = torch.Generator().manual_seed(seed)
    base = BaseModel(pipeline, torch.float32, torch.device(pipeline.device))
    trained.attach(base.unet)
    try:
        for _ in range(FINE_TUNING_STEPS):
            chosen = torch.randint(len(people), (4,), generator=random)
            loss = denoising_losses(base, trained, people[chosen], latents[chosen.to(latents.device)], prompt, random)
            optimizer.zero_grad()
            loss.mean().backward()
            optimizer.step()
    finally:
        trained.detach()
    return trained.requires_grad_(False)


def denoising_losses(
    base: BaseModel,
    adapter: IdentityAdapter,
    people: Rows,
    latents: torch.Tensor,
    prompt: str,
    random: torch.Generator,
    times: Sequence[float] = (),
) -> torch.Tensor:
    """(n,): mean squared error of the prediction of each picture, with its person.

    Args:
        base: The base model; the adapter is attached to its UNet.
        adapter: The adapter.
        people: One row for each picture.
        latents: (n, channels, height, width).
        prompt: Prompt of all pictures.
        random: Draws noise and timesteps.
        times: Shares of the schedule over which the mean is taken; one random timestep for each picture if empty.
    """
    where, schedule = latents.device, base.parametrisation
    tokens = people.tokens(adapter)
    text = base.encode([prompt] * len(latents), tokens)
    side = base.unet.config.sample_size * base.pipeline.vae_scale_factor
    time_ids = torch.tensor([[side, side, 0, 0, side, side]] * len(latents), device=where)
    total = schedule.num_train_timesteps
    drawn = [torch.randint(total, (len(latents),), generator=random)]
    losses = []
    for t in [torch.full((len(latents),), int(share * total)) for share in times] or drawn:
        noise = torch.randn(latents.shape, generator=random).to(where)
        noisy = base.scheduler.add_noise(latents.float(), noise, t.to(where))
        with adapter.activate([tokens], len(latents)):
            output = base.predict(noisy, t.to(where), text, time_ids if "text_embeds" in text else None)
        target = schedule.target(latents.float(), noise, t.to(where))
        losses.append(F.mse_loss(output.float(), target, reduction="none").flatten(1).mean(1))
    return torch.stack(losses).mean(0)
