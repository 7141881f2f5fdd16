"""Soft error rates at one threshold."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import LossError
from .identity_losses import cosine
from .negatives import Negatives, mean_over, negative_cosines
from .settings import DEFAULTS


@dataclass(frozen=True, kw_only=True)
class ErrorRateLoss:
    """Soft false-reject and false-accept rates at a threshold θ: `σ((θ − s⁺)/τ) + mean σ((s⁻ − θ)/τ)`.

    AnyLoss (arXiv 2405.14745) turns a decision into the sigmoid `A(p) = 1/(1 + e^{−L(p − 0.5)})` of a
    probability p, with L = 73, and builds the confusion matrix of these. Here the decision is `s ≥ θ` on cosines, and
    1/τ takes the place of L. The error rates have a gradient near the threshold only: start from a model whose
    similarities are not far from it. Without negatives the second rate is 0.

    Attributes:
        match_threshold: θ; the default fits the default face encoder, see `LossSettings`.
        temperature: τ; see `LossSettings`.

    Raises:
        LossError: θ is not in [−1, 1], or τ is not positive.
    """

    match_threshold: float = DEFAULTS.match_threshold
    temperature: float = DEFAULTS.temperature

    def __post_init__(self) -> None:
        if not -1 <= self.match_threshold <= 1 or self.temperature <= 0:
            raise LossError(f"match_threshold must be in [-1, 1] and temperature > 0, not {self}.")

    def __call__(
        self,
        generated_embeds: torch.Tensor,
        target_embeds: torch.Tensor,
        persons: torch.Tensor,
        negatives: Negatives,
    ) -> torch.Tensor:
        """Arguments as of `ContrastiveLoss`; returns (batch,), 0 to 2."""
        rejected = ((self.match_threshold - cosine(generated_embeds, target_embeds)) / self.temperature).sigmoid()
        cosines, counts = negative_cosines(generated_embeds, persons, negatives)
        accepted = ((cosines - self.match_threshold) / self.temperature).sigmoid()
        return rejected + mean_over(accepted, counts)
