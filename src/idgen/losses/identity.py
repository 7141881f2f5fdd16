"""Losses on the embedding of one generated face, against one or two others."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from ..errors import LossError
from .parametrisation import at_least_float32
from .settings import DEFAULTS


def cosine(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """Cosine of the angle between embeddings along the last axis; at least float32."""
    return F.cosine_similarity(at_least_float32(a), at_least_float32(b), dim=-1)


def identity_loss(generated_embeds: torch.Tensor, target_embeds: torch.Tensor) -> torch.Tensor:
    """`1 − cos(φ(x0), φ(target))` (PhotoVerse, arXiv 2309.05793; PuLID, arXiv 2404.16022, eq. 6).

    PhotoVerse prints the cosine of a difference of features; it is read as the cosine between them. Whether landmarks
    are the target's or the prediction's is decided where the embeddings are made, by `FaceEmbedder`.

    Args:
        generated_embeds: (batch, dim), of the face in the predicted x0, with its gradient.
        target_embeds: (batch, dim), of the same person.

    Returns:
        (batch,), 0 to 2.
    """
    return 1 - cosine(generated_embeds, target_embeds)


@dataclass(frozen=True)
class TripletLoss:
    """`max(0, d(a, p) − d(a, n) + m)` with `d = 1 − cos` (ID-Booth, arXiv 2504.07392, `train_ID-Booth.py`).

    The negative is the face of a prior-preservation picture: what the base model draws for the class. ID-Booth weighs
    it by `(1 − t/T)²`, which is the gate `Decay()`.

    Attributes:
        margin: m; by default that of the default face encoder, see `LossSettings`. ID-Booth has 1.

    Raises:
        LossError: The margin is negative.
    """

    margin: float = DEFAULTS.margin

    def __post_init__(self) -> None:
        if self.margin < 0:
            raise LossError(f"A margin is zero or more, not {self.margin}.")

    def __call__(
        self, generated_embeds: torch.Tensor, target_embeds: torch.Tensor, prior_embeds: torch.Tensor
    ) -> torch.Tensor:
        """(batch, dim) each → (batch,)."""
        nearer = cosine(generated_embeds, target_embeds) - cosine(generated_embeds, prior_embeds)
        return F.relu(self.margin - nearer)
