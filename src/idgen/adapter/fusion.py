"""How text and identity are weighed against each other in cross-attention (PhotoVerse, arXiv 2309.05793)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch


class Fusion(NamedTuple):
    """`text · Attention(Q, K_text, V_text) + identity · Attention(Q, K_identity, V_identity)`; (pictures,) each."""

    text: torch.Tensor
    identity: torch.Tensor


@dataclass(frozen=True)
class RandomFusion:
    """PhotoVerse's random fusion in training, so that each branch learns to stand alone.

    With u ~ U(0, 1): below `text_only` the text counts twice and the identity not at all, above `identity_only` the
    other way round, between them both count once.
    """

    text_only: float = 1 / 3
    identity_only: float = 2 / 3

    def __post_init__(self) -> None:
        if not 0 <= self.text_only <= self.identity_only <= 1:
            raise ValueError(f"Random fusion needs 0 <= text_only <= identity_only <= 1, not {self}.")

    def draw(self, pictures: int, generator: torch.Generator | None = None) -> Fusion:
        """Factors for as many pictures; they are the same on every device for the same generator."""
        return self.at(torch.rand(pictures, generator=generator))

    def at(self, u: torch.Tensor) -> Fusion:
        """Factors for u in [0, 1), (pictures,)."""
        identity = torch.where(u < self.text_only, 0.0, torch.where(u > self.identity_only, 2.0, 1.0))
        return Fusion(2 - identity, identity)
