"""A contrastive loss that tolerates wrong labels."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import LossError
from .identity_losses import cosine
from .negatives import Negatives, negative_cosines
from .settings import DEFAULTS


@dataclass(frozen=True, kw_only=True)
class RobustContrastiveLoss:
    """Label-distributionally robust loss (LDR-KL, arXiv 2112.14869) of the target among n other people:
    `λ log( 1/(n + 1) (1 + Σ exp((s⁻ − s⁺ + c)/λ)) )`.

    It is the largest mean of `s⁻ − s⁺ + c` over distributions of labels near the uniform one. With λ → 0 it is the
    hinge on the hardest negative; with λ → ∞ the mean over all of them, which tolerates wrong labels the best.
    `λ = τ` and c = 0 is InfoNCE times τ, up to a constant. Without negatives the loss is 0.

    Attributes:
        robustness: λ; the default fits the default face encoder, see `LossSettings`.
        margin: c; see `LossSettings`.

    Raises:
        LossError: λ is not positive, or c is negative.
    """

    robustness: float = DEFAULTS.robustness
    margin: float = DEFAULTS.margin

    def __post_init__(self) -> None:
        if self.robustness <= 0 or self.margin < 0:
            raise LossError(f"robustness must be > 0 and margin >= 0, not {self}.")

    def __call__(
        self,
        generated_embeds: torch.Tensor,
        target_embeds: torch.Tensor,
        persons: torch.Tensor,
        negatives: Negatives,
    ) -> torch.Tensor:
        """Arguments as of `ContrastiveLoss`; returns (batch,)."""
        positive = cosine(generated_embeds, target_embeds)
        cosines, counts = negative_cosines(generated_embeds, persons, negatives)
        behind = (cosines - positive[:, None] + self.margin) / self.robustness
        behind = torch.cat([torch.zeros_like(positive)[:, None], behind.masked_fill(~counts, -torch.inf)], 1)
        return self.robustness * (behind.logsumexp(1) - (1 + counts.sum(1)).to(behind).log())
