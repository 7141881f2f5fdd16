"""`NoTokens`: the projection of an adapter that has pseudo-words only."""

from __future__ import annotations

from typing import ClassVar

import torch

from .projection import Projection


class NoTokens(Projection):
    """No tokens; the identity is in the pseudo-words of the prompt only

    Args:
        embedding_dim: Not used.
        num_tokens: Not used.
        cross_attention_dim: Width of the UNet's text embeddings.
    """

    has_branches: ClassVar[bool] = False

    def __init__(self, embedding_dim: int, num_tokens: int, cross_attention_dim: int) -> None:
        super().__init__()
        self.cross_attention_dim = cross_attention_dim

    def forward(self, id_embeds: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, embedding_dim) → (batch, 0, cross_attention_dim)."""
        return id_embeds.new_zeros(len(id_embeds), 0, self.cross_attention_dim)
