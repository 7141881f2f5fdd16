"""From a noisy latent to the clean one, with the graph: in one step, or in several."""

from __future__ import annotations

from collections.abc import Callable

import torch

from ..losses import Parametrisation

Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Noisy latents (batch, …) and timesteps (batch,) → the prediction."""


def clean_in_steps(
    parametrisation: Parametrisation,
    predict: Predict,
    output: torch.Tensor,
    noisy: torch.Tensor,
    timesteps: torch.Tensor,
    steps: int = 1,
) -> torch.Tensor:
    """x0 from x_t in equal steps of DDIM (arXiv 2010.02502, eq. 12, η = 0), each sample from its own timestep.

    One step blurs what it cannot know; more steps give sharper faces, at one pass of the UNet with its graph each.

    Args:
        parametrisation: Of the base model.
        predict: The UNet.
        output: Its prediction from `noisy`, which is the first step.
        noisy: x_t, (batch, channels, height, width).
        timesteps: t, (batch,) integers.
        steps: How many.

    Returns:
        (batch, channels, height, width).
    """
    clean = parametrisation.clean(output, noisy, timesteps)
    for left in range(steps - 1, 0, -1):
        earlier = timesteps * left // steps
        at, before = (parametrisation.alpha_bar(t).view(-1, 1, 1, 1) for t in (timesteps, earlier))
        noise = (noisy - at.sqrt() * clean) / (1 - at).sqrt().clamp(min=1e-4)
        noisy = before.sqrt() * clean + (1 - before).sqrt() * noise
        timesteps, steps = earlier, left
        clean = parametrisation.clean(predict(noisy, timesteps), noisy, timesteps)
    return clean
