"""Weights of text and identity in cross-attention (PhotoVerse, arXiv 2309.05793)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch


class Fusion(NamedTuple):
    """Factors of `text · Attention(Q, K_text, V_text) + identity · Attention(Q, K_id, V_id)`, (images,) each."""

    text: torch.Tensor
    identity: torch.Tensor


@dataclass(frozen=True)
class RandomFusion:
    """PhotoVerse's random fusion in training, which trains each branch also without the other.

    With u ~ U(0, 1), the factors on text and identity are (2, 0) if u < `text_only`, (0, 2) if u > `identity_only`,
    and (1, 1) otherwise.
    """

    text_only: float = 1 / 3
    identity_only: float = 2 / 3

    def __post_init__(self) -> None:
        if not 0 <= self.text_only <= self.identity_only <= 1:
            raise ValueError(f"Random fusion requires 0 <= text_only <= identity_only <= 1, got {self}.")

    def draw(self, images: int, generator: torch.Generator | None = None) -> Fusion:
        """Random factors for a number of images, the same on every device for the same CPU generator."""
        return self.at(torch.rand(images, generator=generator))

    def at(self, u: torch.Tensor) -> Fusion:
        """Factors for u in [0, 1), (images,)."""
        identity = torch.where(u < self.text_only, 0.0, torch.where(u > self.identity_only, 2.0, 1.0))
        return Fusion(2 - identity, identity)
