"""Random numbers of a training step. With a generator per sample they do not depend on how samples are batched.

All numbers are drawn on the CPU, so they are the same for every device.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor

Generators: TypeAlias = "torch.Generator | list[torch.Generator]"
"""One generator for the batch or one per sample, as for the pipelines and schedulers of diffusers."""


def generators(seed: int, update: int, first: int, count: int) -> list[torch.Generator]:
    """Generators for samples of an update, seeded by the arguments alone.

    Args:
        seed: Seed of the run.
        update: Number of the update.
        first: Number of the first sample in the update, over all passes and processes.
        count: Number of samples.
    """
    seeds = (np.random.SeedSequence((seed, update, first + i)).generate_state(1, np.uint64)[0] for i in range(count))
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]


def normal(shape: torch.Size | tuple[int, ...], random: Generators) -> torch.Tensor:
    """Draw standard normal numbers, (batch, …)."""
    return randn_tensor(tuple(shape), generator=random)


def uniform(count: int, random: Generators) -> torch.Tensor:
    """Draw numbers in [0, 1), (count,)."""
    if isinstance(random, torch.Generator):
        return torch.rand(count, generator=random)
    return torch.cat([torch.rand(1, generator=one) for one in random])


def lognormal_timesteps(
    alphas_cumprod: torch.Tensor, mean: float, std: float, count: int, random: Generators
) -> torch.Tensor:
    """Draw timesteps whose noise level is log-normal (improved consistency training, arXiv 2310.14189, section 3.5).

    With σ = √((1 − ᾱ)/ᾱ), the probability of timestep t is proportional to
    `erf((ln σ_{t+1} − mean)/(√2 std)) − erf((ln σ_t − mean)/(√2 std))`; that of the last timestep is 0.

    Args:
        alphas_cumprod: (steps,), ᾱ of each timestep.
        mean: Mean of ln σ; −1.1 in the paper.
        std: Standard deviation of ln σ; 2.0 in the paper.
        count: Number of samples.
        random: Generators.

    Returns:
        (count,), integers.
    """
    alphas = alphas_cumprod.double().cpu()
    log_levels = ((1 - alphas).log() - alphas.log()) / 2  # infinite where ᾱ is 0; erf is 1 there
    below = torch.erf((log_levels - mean) / (2**0.5 * std))
    up_to = (below[1:] - below[0]) / (below[-1] - below[0])
    return torch.searchsorted(up_to, uniform(count, random).double(), right=True)


def integers(low: int, high: int, count: int, random: Generators) -> torch.Tensor:
    """Draw integers in [low, high), (count,)."""
    if isinstance(random, torch.Generator):
        return torch.randint(low, high, (count,), generator=random)
    return torch.cat([torch.randint(low, high, (1,), generator=one) for one in random])
