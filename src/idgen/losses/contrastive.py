"""Contrastive losses: a generated face against its target and other people.

All read the same inputs: `generated_embeds` and `target_embeds`, (batch, dim), `persons`, (batch,), and `negatives`.
The positive is the target's embedding, not the reference's, as in WithAnyone.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..errors import LossError
from .identity_losses import cosine
from .negatives import Bank, Negatives, mean_over, negative_cosines, within_whiskers
from .settings import DEFAULTS


@dataclass(frozen=True, kw_only=True)
class ContrastiveLoss:
    """InfoNCE: `−log( exp(s⁺/τ) / (exp(s⁺/τ) + Σ exp(s⁻/τ)) )` over cosines (WithAnyone, arXiv 2510.14975, eq. 7).

    The paper prints the sum over the negatives only; its code, and this one, includes the positive. WithAnyone uses
    4096 negatives: 63 of the batch and the rest from a bank. Without negatives the loss is 0.

    Attributes:
        temperature: τ; the default fits the default face encoder, see `LossSettings`. WithAnyone uses 0.1 with
            ArcFace.
        whiskers: Ignore negatives farther than this many interquartile ranges from the box; see `within_whiskers`.
        heads: Compare this many equal slices of the embeddings separately, and average. AMCL learns the heads and a
            temperature for each pair. A frozen face encoder cannot learn them, so the slices are fixed and share τ.
            One head is plain InfoNCE.

    Raises:
        LossError: τ, the whiskers or the number of heads is not positive.
    """

    temperature: float = DEFAULTS.temperature
    whiskers: float | None = None
    heads: int = 1

    def __post_init__(self) -> None:
        if self.temperature <= 0 or self.heads < 1 or (self.whiskers is not None and self.whiskers <= 0):
            raise LossError(f"temperature, whiskers and heads must be > 0, not {self}.")

    def __call__(
        self,
        generated_embeds: torch.Tensor,
        target_embeds: torch.Tensor,
        persons: torch.Tensor,
        negatives: Negatives,
    ) -> torch.Tensor:
        """Arguments as in the module's docstring; returns (batch,).

        Raises:
            LossError: The shapes do not match, or the heads do not divide the embedding.
        """
        dim = generated_embeds.shape[1]
        if dim % self.heads:
            raise LossError(f"{self.heads} heads do not divide an embedding of length {dim}.")
        bank = negatives(persons) if callable(negatives) else negatives
        slices = (x.chunk(self.heads, -1) for x in (generated_embeds, target_embeds, bank.embeds))
        heads = [self._head(g, t, persons, Bank(n, bank.persons)) for g, t, n in zip(*slices, strict=True)]
        return torch.stack(heads).mean(0)

    def _head(self, generated: torch.Tensor, target: torch.Tensor, persons: torch.Tensor, bank: Bank) -> torch.Tensor:
        positive = cosine(generated, target)
        negative, counts = negative_cosines(generated, persons, bank)
        if self.whiskers is not None:
            counts = within_whiskers(negative, counts, self.whiskers)
        logits = torch.cat([positive[:, None], negative.masked_fill(~counts, -torch.inf)], 1) / self.temperature
        return logits.logsumexp(1) - logits[:, 0]


@dataclass(frozen=True, kw_only=True)
class ThresholdLoss:
    """Threshold-consistent margin: `w⁺ · mean_{s⁺ ≤ m⁺}(m⁺ − s⁺) + w⁻ · mean_{s⁻ ≥ m⁻}(s⁻ − m⁻)`.

    TCM (arXiv 2307.04047) takes both means over the hard pairs of the batch. Here they are taken for each sample,
    which has one positive pair. With absolute cosines one threshold applies to all people. The defaults fit the
    default face encoder, see `LossSettings`.

    Attributes:
        positive_threshold: m⁺; the similarity to reach with the same person.
        negative_threshold: m⁻; the similarity to stay below with other people.
        positive_weight: w⁺.
        negative_weight: w⁻.

    Raises:
        LossError: A threshold is not in [−1, 1] or a weight is negative.
    """

    positive_threshold: float = DEFAULTS.positive_threshold
    negative_threshold: float = DEFAULTS.negative_threshold
    positive_weight: float = 1.0
    negative_weight: float = 1.0

    def __post_init__(self) -> None:
        thresholds = self.positive_threshold, self.negative_threshold
        if not all(-1 <= m <= 1 for m in thresholds) or min(self.positive_weight, self.negative_weight) < 0:
            raise LossError(f"Thresholds must be in [-1, 1] and weights >= 0, not {self}.")

    def __call__(
        self,
        generated_embeds: torch.Tensor,
        target_embeds: torch.Tensor,
        persons: torch.Tensor,
        negatives: Negatives,
    ) -> torch.Tensor:
        """Arguments as in the module's docstring; returns (batch,)."""
        positive = cosine(generated_embeds, target_embeds)
        negative, counts = negative_cosines(generated_embeds, persons, negatives)
        excess = negative - self.negative_threshold
        too_unlike = F.relu(self.positive_threshold - positive)
        return self.positive_weight * too_unlike + self.negative_weight * mean_over(excess, counts & (excess >= 0))


@dataclass(frozen=True)
class MannWhitneyLoss:
    """Soft AUC: each positive against every negative of the batch, `mean softplus(−(s⁺ᵢ − s⁻ₖ)/τ)`.

    Only the negatives of samples that count are read: a face that was not found is left out.

    From "Optimizing What Matters: AUC-Driven Learning for Robust Neural Retrieval". InfoNCE compares a sample with its
    own negatives only, and cannot calibrate one threshold for all people. One minus the AUC is at most the loss
    divided by log 2. Each of several processes uses the negatives of its own samples. Without negatives the loss is 0.

    Attributes:
        temperature: τ; the default fits the default face encoder, see `LossSettings`.

    Raises:
        LossError: τ is not positive.
    """

    temperature: float = DEFAULTS.temperature

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise LossError(f"temperature must be > 0, not {self.temperature}.")

    def __call__(
        self,
        generated_embeds: torch.Tensor,
        target_embeds: torch.Tensor,
        persons: torch.Tensor,
        negatives: Negatives,
        counts: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Arguments as in the module's docstring. `counts`, (batch,) of booleans, are the samples whose negatives are
        read; all by default. Returns (batch,)."""
        positive = cosine(generated_embeds, target_embeds)
        cosines, others = negative_cosines(generated_embeds, persons, negatives)
        if counts is not None:
            others = others & counts.to(others.device)[:, None]
        lead = (positive[:, None] - cosines[others]) / self.temperature
        return F.softplus(-lead).sum(1) / max(lead.shape[1], 1)
