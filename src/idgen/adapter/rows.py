"""The projection for embeddings that consist of rows: feature maps of a face encoder, and StyleGAN's W+."""

from __future__ import annotations

import torch
from torch import nn

from ..errors import AdapterError
from .perceiver import PerceiverResampler
from .projection import Projection, standardise_linear


class RowsProjection(PerceiverResampler, Projection):
    """A Perceiver resampler over an embedding that consists of rows (FaceChain-FACT; W+ has 18 of 512).

    Args:
        embedding_dim: Length of an embedding, all rows in a row.
        num_tokens: Tokens per identity.
        cross_attention_dim: Width of a token.
        rows: Rows of an embedding: 18 for W+ of 1024 pixels, the positions of a feature map.
        positions: Whether each row has a learned vector, without which the order of the rows does not matter.
        hidden_dim: Width of the layers.
        depth: Number of layers.
        dim_head: Width of an attention head.
        heads: Attention heads; `hidden_dim / dim_head` if not given.

    Raises:
        AdapterError: The length of an embedding is no multiple of the rows.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_tokens: int,
        cross_attention_dim: int,
        *,
        rows: int = 18,
        positions: bool = True,
        hidden_dim: int = 1024,
        depth: int = 4,
        dim_head: int = 64,
        heads: int | None = None,
    ) -> None:
        if embedding_dim % rows:
            raise AdapterError(f"projection 'rows': embeddings of {embedding_dim} numbers do not have {rows} rows.")
        heads = heads or max(1, hidden_dim // dim_head)
        super().__init__(hidden_dim, depth, dim_head, heads, embedding_dim // rows, cross_attention_dim)
        self.rows = rows
        self.latents = nn.Parameter(torch.randn(1, num_tokens, hidden_dim) / hidden_dim**0.5)
        self.positions = nn.Parameter(torch.randn(1, rows, hidden_dim) / hidden_dim**0.5) if positions else None

    def standardise_input(self, embeddings: torch.Tensor) -> None:
        """See `Projection`; all rows have one mean and deviation."""
        standardise_linear(self.proj_in, embeddings.unflatten(-1, (self.rows, -1)).flatten(0, 1))

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, id_embeds: torch.Tensor, features: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See `Projection`."""
        rows, queries = id_embeds.unflatten(-1, (self.rows, -1)), self.latents.expand(len(id_embeds), -1, -1)
        return super().forward(rows, queries, self.positions)
