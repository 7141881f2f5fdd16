"""Random numbers of a training step: with a generator for each sample they do not depend on how samples are batched.

All numbers are drawn on the CPU, so that they are the same on every device.
"""

from __future__ import annotations

from typing import TypeAlias

import numpy as np
import torch
from diffusers.utils.torch_utils import randn_tensor

Generators: TypeAlias = "torch.Generator | list[torch.Generator]"
"""One generator for the batch, or one for each sample, as diffusers' pipelines and schedulers take them."""


def generators(seed: int, update: int, first: int, count: int) -> list[torch.Generator]:
    """The generators of some samples of an update; they follow from the arguments alone.

    Args:
        seed: Of the run.
        update: Number of the update.
        first: Number of the first sample in the update, over all passes and processes.
        count: How many samples.
    """
    seeds = (np.random.SeedSequence((seed, update, first + i)).generate_state(1, np.uint64)[0] for i in range(count))
    return [torch.Generator().manual_seed(int(seed)) for seed in seeds]


def normal(shape: torch.Size | tuple[int, ...], random: Generators) -> torch.Tensor:
    """Standard normal numbers, (batch, …)."""
    return randn_tensor(tuple(shape), generator=random)


def uniform(count: int, random: Generators) -> torch.Tensor:
    """Numbers in [0, 1), (count,)."""
    if isinstance(random, torch.Generator):
        return torch.rand(count, generator=random)
    return torch.cat([torch.rand(1, generator=one) for one in random])


def integers(low: int, high: int, count: int, random: Generators) -> torch.Tensor:
    """Integers from `low` up to, but not including, `high`, (count,)."""
    if isinstance(random, torch.Generator):
        return torch.randint(low, high, (count,), generator=random)
    return torch.cat([torch.randint(low, high, (1,), generator=one) for one in random])
