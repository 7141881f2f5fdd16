"""The contrastive loss with mixtures of a positive and a negative."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..errors import LossError
from .contrastive import ContrastiveLoss, Logits, info_nce
from .identity_losses import cosine
from .learned_similarity import LearnedSimilarity
from .negatives import Negatives
from .settings import DEFAULTS


@dataclass(frozen=True, kw_only=True)
class MixedContrastiveLoss(ContrastiveLoss):
    """`L + w (λ L(v as the positive) + (1 − λ) L(v as one more negative))` with `v = λ p + (1 − λ) n`.

    Metrix (arXiv 2106.04990, `mixup/losses.py`) mixes positives with hard negatives and labels the mixture with λ: it
    is a positive with the weight λ, and a negative with the weight 1 − λ. Metrix applies this to other losses, here it
    is applied to InfoNCE. p and n have unit length, n is the negative that is most similar to the generated face, and
    λ is drawn from Beta(2, 2).

    Attributes:
        mixup: w; about 0.4 in Metrix.

    Raises:
        LossError: The weight is not positive.
    """

    mixup: float = 0.4

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.mixup <= 0:
            raise LossError(f"mixup must be > 0, not {self.mixup}.")

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        generated_embeds: torch.Tensor,
        target_embeds: torch.Tensor,
        persons: torch.Tensor,
        negatives: Negatives,
        mixing: torch.Tensor,
    ) -> torch.Tensor:
        """Arguments as for `ContrastiveLoss`, and `mixing`, (batch,), which is λ; returns (batch,)."""
        heads = self.compare(generated_embeds, target_embeds, persons, negatives)
        share = mixing.to(heads[0].generated)
        losses = [
            info_nce(head.positive, head.negative) + head.penalty + self.mixup * self._mixed(i, head, share)
            for i, head in enumerate(heads)
        ]
        return torch.stack(losses).mean(0)

    def _mixed(self, index: int, head: Logits, share: torch.Tensor) -> torch.Tensor:
        """The loss on v, (batch,); 0 without negatives."""
        counts = head.negative.isfinite().any(1)
        if not counts.any():
            return torch.zeros_like(share)
        row = torch.arange(len(share), device=share.device)
        hardest = head.others.expand(len(share), -1, -1)[row, head.negative.argmax(1)]
        positive, negative = F.normalize(head.target, dim=-1), F.normalize(hardest, dim=-1)
        mixture = share[:, None] * positive + (1 - share[:, None]) * negative
        mixed, _ = self.scaled(index, head.generated, mixture[:, None], cosine(head.generated, mixture)[:, None])
        as_negative = info_nce(head.positive, torch.cat([head.negative, mixed], 1))
        return torch.where(counts, share * info_nce(mixed, head.negative) + (1 - share) * as_negative, 0)


def make_contrastive(
    temperature: float = DEFAULTS.temperature,
    whiskers: float | None = None,
    heads: int = 1,
    mixup: float = 0.0,
    learned: Sequence[str] = (),
    embedding_dim: int | None = None,
) -> ContrastiveLoss:
    """The contrastive loss of a configuration.

    Args:
        temperature: See `ContrastiveLoss`; so are `whiskers` and `heads`.
        mixup: See `MixedContrastiveLoss`; 0 for none.
        learned: Parts of `LearnedSimilarity`.
        embedding_dim: Length of an embedding; needed if something is learned.

    Raises:
        LossError: A setting is malformed, or `embedding_dim` is missing.
    """
    if learned and embedding_dim is None:
        raise LossError("Learned parts of the contrastive loss need embedding_dim, the length of an embedding.")
    similarity = LearnedSimilarity(embedding_dim, heads, learned) if learned and embedding_dim else None
    settings = {"temperature": temperature, "whiskers": whiskers, "heads": heads, "learned": similarity}
    if mixup:
        return MixedContrastiveLoss(mixup=mixup, **settings)  # pyright: ignore[reportArgumentType]
    return ContrastiveLoss(**settings)  # pyright: ignore[reportArgumentType]
