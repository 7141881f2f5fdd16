"""The projections of IP-Adapter-FaceID and InstantID, with the parameter names of the published files."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from ..errors import AdapterError
from .perceiver import PerceiverResampler
from .projection import Projection, standardise_linear


class MLPProjection(Projection):
    """Two linear layers and a layer norm (IP-Adapter-FaceID).

    Args:
        embedding_dim: Length of an embedding.
        num_tokens: Tokens per identity.
        cross_attention_dim: Width of a token.
        hidden_dim: Width of the hidden layer; twice `embedding_dim` if not given.
    """

    def __init__(
        self, embedding_dim: int, num_tokens: int, cross_attention_dim: int, *, hidden_dim: int | None = None
    ) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        hidden_dim = hidden_dim or 2 * embedding_dim
        self.proj = nn.Sequential(
            nn.Linear(embedding_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, num_tokens * cross_attention_dim),
        )
        self.norm = nn.LayerNorm(cross_attention_dim)

    def standardise_input(self, embeddings: torch.Tensor) -> None:
        """See `Projection`."""
        standardise_linear(cast(nn.Linear, self.proj[0]), embeddings)

    def forward(self, id_embeds: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        """See `Projection`."""
        return self.norm(self.proj(id_embeds).unflatten(-1, (self.num_tokens, -1)))


class ResamplerProjection(PerceiverResampler, Projection):
    """A Perceiver resampler with learned queries (InstantID).

    Args:
        embedding_dim: Length of an embedding.
        num_tokens: Tokens per identity.
        cross_attention_dim: Width of a token.
        hidden_dim: Width of the layers.
        depth: Number of layers.
        dim_head: Width of an attention head.
        heads: Attention heads; `hidden_dim / dim_head` if not given.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_tokens: int,
        cross_attention_dim: int,
        *,
        hidden_dim: int = 1280,
        depth: int = 4,
        dim_head: int = 64,
        heads: int | None = None,
    ) -> None:
        latents = torch.randn(1, num_tokens, hidden_dim) / hidden_dim**0.5
        heads = heads or hidden_dim // dim_head
        super().__init__(hidden_dim, depth, dim_head, heads, embedding_dim, cross_attention_dim)
        self.latents = nn.Parameter(latents)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, id_embeds: torch.Tensor, features: torch.Tensor | None = None
    ) -> torch.Tensor:
        """See `Projection`."""
        return super().forward(id_embeds[:, None], self.latents.expand(len(id_embeds), -1, -1))


class PlusProjection(MLPProjection):
    """Identity tokens that attend to CLIP features of the face (IP-Adapter-FaceID-Plus and PlusV2).

    Args:
        embedding_dim: Length of an embedding.
        num_tokens: Tokens per identity.
        cross_attention_dim: Width of a token.
        hidden_dim: Width of the hidden layer of the MLP; twice `embedding_dim` if not given.
        feature_dim: Width of the CLIP features.
        depth: Layers of the resampler.
        dim_head: Width of an attention head.
        heads: Attention heads; `cross_attention_dim / dim_head` if not given.
        shortcut: Whether the tokens of the MLP are added to the output, as in PlusV2.
    """

    reads_features = True

    def __init__(
        self,
        embedding_dim: int,
        num_tokens: int,
        cross_attention_dim: int,
        *,
        hidden_dim: int | None = None,
        feature_dim: int = 1280,
        depth: int = 4,
        dim_head: int = 64,
        heads: int | None = None,
        shortcut: bool = False,
    ) -> None:
        super().__init__(embedding_dim, num_tokens, cross_attention_dim, hidden_dim=hidden_dim)
        self.shortcut = shortcut
        self.shortcut_scale = 1.0
        heads = heads or max(1, cross_attention_dim // dim_head)
        self.perceiver_resampler = PerceiverResampler(
            cross_attention_dim, depth, dim_head, heads, feature_dim, cross_attention_dim
        )

    def forward(self, id_embeds: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        """See `Projection`."""
        if features is None:
            raise AdapterError("The 'plus' projection requires CLIP features of the face beside the embedding.")
        tokens = super().forward(id_embeds)
        found = self.perceiver_resampler(features, tokens)
        return tokens + self.shortcut_scale * found if self.shortcut else found
