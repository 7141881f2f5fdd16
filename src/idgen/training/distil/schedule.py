"""The timesteps of consistency models: how the noise schedule is divided, and which pair of neighbours is drawn."""

from __future__ import annotations

import math

import torch

from ..randomness import Generators, integers, lognormal_timesteps
from .config import ConsistencyConfig


def intervals(config: ConsistencyConfig, update: int, updates: int) -> int:
    """The number of steps that the noise schedule is divided into at an update.

    With `doubling`, `min(s0 · 2^⌊k/K'⌋, s1)` with `K' = ⌊K / (log2⌊s1/s0⌋ + 1)⌋` (improved consistency training, arXiv
    2310.14189, eq. 12; the paper counts the points, one more).

    Args:
        config: The settings.
        update: k.
        updates: K, updates of the whole run.
    """
    if not config.doubling or config.first_steps >= config.steps:
        return config.steps
    stages = math.floor(math.log2(config.steps // config.first_steps)) + 1
    each = max(updates // stages, 1)
    return min(config.first_steps * 2 ** (update // each), config.steps)


def grid(num_train_timesteps: int, count: int) -> torch.Tensor:
    """Increasing timesteps: 0 and those of `LCMScheduler` with as many original steps; less where they coincide."""
    count = min(count, num_train_timesteps - 1)
    return torch.tensor([0, *((i * num_train_timesteps) // count - 1 for i in range(1, count + 1))]).unique()


def draw_pairs(
    config: ConsistencyConfig, alphas_cumprod: torch.Tensor, count: int, samples: int, random: Generators
) -> tuple[torch.Tensor, torch.Tensor]:
    """Draw neighbours of the grid.

    Args:
        config: The settings.
        alphas_cumprod: (steps,), ᾱ of each training timestep.
        count: See `intervals`.
        samples: Number of pairs.
        random: Generators.

    Returns:
        The noisier and the other timesteps, (samples,) integers each.
    """
    points = grid(len(alphas_cumprod), count)
    if config.timesteps == "uniform":
        lower = integers(0, len(points) - 1, samples, random)
    else:
        mean, std = config.lognormal_mean, config.lognormal_std
        lower = lognormal_timesteps(alphas_cumprod.cpu()[points], mean, std, samples, random)
    return points[lower + 1], points[lower]
