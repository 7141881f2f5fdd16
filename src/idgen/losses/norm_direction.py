"""Norm and direction of an embedding against the mean of its class."""

from __future__ import annotations

import torch
from torch import nn

from .parametrisation import at_least_float32
from .precision import full_precision
from .prototypes import Centres, person_centres


class NormDirectionLoss(nn.Module):
    """`1 − g·c / max(‖g‖, ‖t‖)`, with c the direction of the mean embedding of the person's photos.

    ND (arXiv 2305.17007; `DirectNormLoss` in the authors' code) distils a classifier: t are the teacher's features.
    Here they are the target's. The generated face lies in the direction of the person's mean, and its embedding is as
    long as the photo's, since recognisers give shorter embeddings to faces that they recognise badly. A longer one has
    no advantage.

    Args:
        centres: Mean embeddings of the people; only their directions are read.

    Raises:
        LossError: `centres` is missing.
    """

    def __init__(self, centres: Centres | None = None) -> None:
        super().__init__()
        self.centres = nn.functional.normalize(person_centres(centres), dim=-1)

    def forward(
        self, generated_embeds: torch.Tensor, target_embeds: torch.Tensor, persons: torch.Tensor
    ) -> torch.Tensor:
        """(batch, dim), (batch, dim), as the encoder returns them, and (batch,) → (batch,), 0 to 2."""
        self.centres = self.centres.to(generated_embeds.device)
        with full_precision(generated_embeds):
            generated, target = at_least_float32(generated_embeds), at_least_float32(target_embeds)
            along = (generated * self.centres[persons].to(generated)).sum(-1)
            return 1 - along / torch.maximum(generated.norm(dim=-1), target.norm(dim=-1))
