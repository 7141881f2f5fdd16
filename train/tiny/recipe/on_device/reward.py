"""The update of the adapter by the identity reward."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from idgen.losses import base_preservation_loss
from idgen.losses.style import style_preservation_loss

from ..device import autocast, device
from .captured import Losses, Trained
from .latent_faces import LatentFaces
from .person import Person, trailing
from .resident import Resident
from .updates import draw_timesteps, mask_of

STEPS, GUIDANCE = 8, 3.0
"""Of the pictures that are rewarded."""
STYLE = 10.0
"""Weight of the loss that keeps colours and contrast of the base's picture of the same noise."""


def reward_update(
    data: Resident, model: Person, trained: Trained, faces: LatentFaces, batch: int, last: int
) -> Callable[[], Losses]:
    """AlignProp: the identity reward of generated pictures, with preservation of background and style, and denoising.

    Args:
        last: Steps with a gradient.
    """
    times = trailing(STEPS, len(model.alphas))

    def update() -> Losses:
        drawn = data.batch(batch, 0.4)
        with autocast():
            guided = model.guided(drawn.tokens, data.nothing, drawn.identity, GUIDANCE)
            noise = torch.randn_like(drawn.latents)
            latents, noisy, output = guided.generate(noise, times, last)
            without_id, _, _ = guided.generate(noise, times, 0, with_id=False)
        with torch.no_grad():
            points = faces.find(latents)
        made = faces.embed(latents, points)
        reward = F.cosine_similarity(made, drawn.target, dim=1)
        steps = torch.full((batch,), times[-1], device=device())
        with autocast():
            plain = without_identity(model, data, noisy.detach(), steps, drawn.tokens)
        kept = base_preservation_loss(output, plain, mask_of(points, output)).mean()
        style = style_preservation_loss(latents, without_id).mean()
        denoising = _denoising(data, model, batch // 2)
        loss = -5 * reward.mean() + kept + STYLE * style + denoising
        told = {"reward": reward[: batch // 2].mean(), "styled": reward[-batch // 4 :].mean(), "kept": kept}
        told = {**told, "style": style, "denoising": denoising}
        return {**{name: value.detach() for name, value in told.items()}, "norm": trained.step(loss)}

    return update


def without_identity(
    model: Person, data: Resident, noisy: torch.Tensor, timesteps: torch.Tensor, tokens: torch.Tensor
) -> torch.Tensor:
    """The base's own prediction of v with guidance, (batch, channels, side, side), without a gradient."""
    both = torch.cat([data.nothing.expand(len(tokens), -1), tokens])
    negative, positive = model.without(noisy.repeat(2, 1, 1, 1), timesteps.repeat(2), both).float().chunk(2)
    return negative + GUIDANCE * (positive - negative)


def _denoising(data: Resident, model: Person, batch: int) -> torch.Tensor:
    drawn = data.batch(batch, 0.4)
    noise, timesteps = torch.randn_like(drawn.latents), draw_timesteps(model, batch)
    noisy = model.noised(drawn.latents, noise, timesteps)
    with autocast():
        found = model(noisy, timesteps, drawn.tokens, drawn.identity).float()
    return (found - model.v(drawn.latents, noise, timesteps)).square().mean()
