"""Contrastive losses: a generated face against its target and other people.

All read the same inputs: `generated_embeds` and `target_embeds`, (batch, dim), `persons`, (batch,), and `negatives`.
The positive is the target's embedding, not the reference's, as in WithAnyone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ..errors import LossError
from .identity_losses import cosine
from .learned_similarity import LearnedSimilarity
from .negatives import Bank, Negatives, mean_over, negative_cosines, within_whiskers
from .parametrisation import at_least_float32
from .settings import DEFAULTS

REGULARISER = 0.1
"""Weight of the penalty on learned temperatures, β in AMCL's code."""


class Logits(NamedTuple):
    """The comparisons of one head: cosines divided by the temperature.

    Attributes:
        positive: (batch, 1), with the target.
        negative: (batch, n), with the bank; −∞ where a negative does not count.
        penalty: (batch,), of learned temperatures; 0 without them.
        generated: (batch, width), embeddings of the head.
        target: (batch, width).
        others: (n, width) or (batch, n, width), of the bank.
    """

    positive: torch.Tensor
    negative: torch.Tensor
    penalty: torch.Tensor
    generated: torch.Tensor
    target: torch.Tensor
    others: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class ContrastiveLoss:
    """InfoNCE: `−log( exp(s⁺/τ) / (exp(s⁺/τ) + Σ exp(s⁻/τ)) )` over cosines (WithAnyone, arXiv 2510.14975, eq. 7).

    The paper prints the sum over the negatives only; its code, and this one, includes the positive. WithAnyone uses
    4096 negatives: 63 of the batch and the rest from a bank. Without negatives the loss is 0.

    Attributes:
        temperature: τ; the default fits the default face encoder, see `LossSettings`. WithAnyone uses 0.1 with
            ArcFace.
        whiskers: Ignore negatives farther than this many interquartile ranges from the box; see `within_whiskers`.
        heads: Compare this many equal slices of the embeddings separately, and average. One head is plain InfoNCE.
        learned: Learned heads, gates or temperatures of pairs, with as many heads.

    Raises:
        LossError: τ, the whiskers or the number of heads is not positive.
    """

    temperature: float = DEFAULTS.temperature
    whiskers: float | None = None
    heads: int = 1
    learned: LearnedSimilarity | None = None

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
        heads = self.compare(generated_embeds, target_embeds, persons, negatives)
        return torch.stack([info_nce(head.positive, head.negative) + head.penalty for head in heads]).mean(0)

    def compare(
        self,
        generated_embeds: torch.Tensor,
        target_embeds: torch.Tensor,
        persons: torch.Tensor,
        negatives: Negatives,
    ) -> list[Logits]:
        """The comparisons of each head; arguments and errors are those of a call."""
        bank = negatives(persons) if callable(negatives) else negatives
        parts = zip(*map(self._split, (generated_embeds, target_embeds, bank.embeds)), strict=True)
        return [self._compare(i, g, t, persons, Bank(n, bank.persons)) for i, (g, t, n) in enumerate(parts)]

    def scaled(
        self, head: int, generated: torch.Tensor, others: torch.Tensor, cosines: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Cosines divided by the temperature of each pair, and the penalties of the temperatures, (batch, n) both."""
        if self.learned is None:
            return cosines / self.temperature, torch.zeros_like(cosines)
        ratio = self.learned.relative_temperature(head, generated, others).to(cosines).expand_as(cosines)
        return cosines / (self.temperature * ratio), REGULARISER * (ratio.log() + 1 / ratio - 1)

    def _split(self, embeds: torch.Tensor) -> Sequence[torch.Tensor]:
        """The embeddings of the heads, (…, dim / heads) each."""
        embeds = at_least_float32(embeds)
        if self.learned is not None:
            return self.learned.split(embeds)
        if embeds.shape[-1] % self.heads:
            raise LossError(f"{self.heads} heads do not divide an embedding of length {embeds.shape[-1]}.")
        return embeds.chunk(self.heads, -1)

    def _compare(
        self, head: int, generated: torch.Tensor, target: torch.Tensor, persons: torch.Tensor, bank: Bank
    ) -> Logits:
        cosines, counts = negative_cosines(generated, persons, bank)
        if self.whiskers is not None:
            counts = within_whiskers(cosines, counts, self.whiskers)
        positive, penalty = self.scaled(head, generated, target[:, None], cosine(generated, target)[:, None])
        negative, penalties = self.scaled(head, generated, bank.embeds, cosines)
        penalty = mean_over(torch.cat([penalty, penalties], 1), torch.cat([torch.ones_like(penalty) > 0, counts], 1))
        negative = negative.masked_fill(~counts, -torch.inf)
        return Logits(positive, negative, penalty, generated, target, bank.embeds)


def info_nce(positive: torch.Tensor, negative: torch.Tensor) -> torch.Tensor:
    """Logits, (batch, 1) and (batch, n) → (batch,)."""
    return torch.cat([positive, negative], 1).logsumexp(1) - positive[:, 0]


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
