"""How much better a picture is than those that it is compared with."""

from __future__ import annotations

import torch

CLIP = 5.0
"""Advantages are cut off there, as in the code of DDPO and of Flow-GRPO."""


def advantages(rewards: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """`(r − mean) / deviation` over each group (GRPO, arXiv 2402.03300, section 4.1.1), cut off at ±5.

    Args:
        rewards: (pictures,).
        groups: (pictures,), a number for each group.

    Returns:
        (pictures,); 0 where all rewards of a group are alike, so also in a group of one picture.
    """
    same = (groups[:, None] == groups).to(rewards)
    count = same.sum(1)
    apart = rewards - (same @ rewards) / count
    deviation = ((same @ apart.square()) / count).sqrt()
    return torch.where(deviation > 1e-6, apart / deviation.clamp(min=1e-6), 0).clamp(-CLIP, CLIP)
