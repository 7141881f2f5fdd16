"""PuLID's ID encoders (arXiv 2404.16022): face embedding and features of EVA-CLIP → tokens.

The features of a photo are one tensor, (1 + 5 · n, feature_dim): first the image embedding of unit length, padded
with zeros, then the hidden states of five layers, each with its class token first. Parameter names are those of the
published files.
"""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from ..errors import AdapterError
from .perceiver import PerceiverAttention, feed_forward
from .projection import Projection

SCALES = 5
"""Layers of the image encoder whose hidden states are read."""


class _IDEncoder(Projection):
    """What both versions read: an embedding with the image embedding behind it, and hidden states of each scale."""

    reads_features = True
    zero_features = True
    in_float32 = True
    clip_dim: int

    def forward(self, id_embeds: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        """See `Projection`."""
        return self.of_photos(id_embeds[:, None], None if features is None else features[:, None])

    def _read(self, id_embeds: torch.Tensor, features: torch.Tensor | None) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, photos, …) → inputs (batch, photos, embedding_dim + clip_dim), and hidden states (batch, photos,
        scales, n, feature_dim)."""
        if features is None:
            raise AdapterError("PuLID requires EVA-CLIP features of the face beside the embedding.")
        if features.shape[2] < 1 + 2 * SCALES or (features.shape[2] - 1) % SCALES:
            raise AdapterError(
                f"PuLID reads 1 + {SCALES} · n rows of features for each photo, got {features.shape[2]} rows."
            )
        image, hidden = features[:, :, 0, : self.clip_dim], features[:, :, 1:]
        return torch.cat([id_embeds, image], -1), hidden.unflatten(2, (SCALES, -1))


class PuLIDProjection(_IDEncoder):
    """Linear maps of the embeddings and of five layers of EVA-CLIP (PuLID v1).

    The first photo has `num_tokens` tokens. Each other one adds those of its embeddings only.

    Args:
        embedding_dim: Length of an embedding.
        num_tokens: Tokens of one photo: five of the layers, and the others of the embeddings.
        cross_attention_dim: Width of a token.
        clip_dim: Length of the image embedding.
        feature_dim: Width of the hidden states.
        hidden_dim: First inner width of the map of the embeddings.
        hidden_dim_2: Its second inner width.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_tokens: int,
        cross_attention_dim: int,
        *,
        clip_dim: int = 768,
        feature_dim: int = 1024,
        hidden_dim: int = 1024,
        hidden_dim_2: int = 1024,
    ) -> None:
        super().__init__()
        if num_tokens <= SCALES:
            raise AdapterError(f"PuLID requires num_tokens > {SCALES}, got {num_tokens}.")
        self.clip_dim, self.id_tokens = clip_dim, num_tokens - SCALES
        outputs = self.id_tokens * cross_attention_dim
        self.body = _map(embedding_dim + clip_dim, hidden_dim, hidden_dim_2, outputs)
        for i in range(SCALES):
            setattr(self, f"mapping_{i}", _map(feature_dim, feature_dim, feature_dim, cross_attention_dim))
            setattr(self, f"mapping_patch_{i}", _map(feature_dim, feature_dim, feature_dim, cross_attention_dim))

    def of_photos(self, id_embeds: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        """See `Projection`."""
        embeds, hidden = self._read(id_embeds, features)
        of_face = self.body(embeds).unflatten(-1, (self.id_tokens, -1))
        of_scales = [
            getattr(self, f"mapping_{i}")(hidden[:, 0, i, :1])
            + getattr(self, f"mapping_patch_{i}")(hidden[:, 0, i, 1:]).mean(1, keepdim=True)
            for i in range(SCALES)
        ]
        return torch.cat([of_face[:, 0], *of_scales, of_face[:, 1:].flatten(1, 2)], 1)


class IDFormerProjection(_IDEncoder):
    """A Perceiver whose queries read five layers of EVA-CLIP, all photos together (PuLID v1.1).

    Args:
        embedding_dim: Length of an embedding.
        num_tokens: Tokens per identity, of one photo or several.
        cross_attention_dim: Width of a token.
        clip_dim: Length of the image embedding.
        feature_dim: Width of the hidden states.
        hidden_dim: Width of the queries.
        depth: Number of layers, a multiple of five.
        dim_head: Width of an attention head.
        heads: Attention heads; `hidden_dim / dim_head` if not given.
        id_tokens: Queries from the embeddings of one photo.
        map_dim: Inner width of the maps of embeddings and hidden states; `feature_dim` if not given.
    """

    is_joint = True

    def __init__(
        self,
        embedding_dim: int,
        num_tokens: int,
        cross_attention_dim: int,
        *,
        clip_dim: int = 768,
        feature_dim: int = 1024,
        hidden_dim: int = 1024,
        depth: int = 10,
        dim_head: int = 64,
        heads: int | None = None,
        id_tokens: int = 5,
        map_dim: int | None = None,
    ) -> None:
        super().__init__()
        if depth % SCALES:
            raise AdapterError(f"depth must be a multiple of {SCALES}, got {depth}.")
        self.clip_dim, self.id_tokens = clip_dim, id_tokens
        heads, map_dim = heads or max(1, hidden_dim // dim_head), map_dim or feature_dim
        self.latents = nn.Parameter(torch.randn(1, num_tokens, hidden_dim) / hidden_dim**0.5)
        self.proj_out = nn.Parameter(torch.randn(hidden_dim, cross_attention_dim) / hidden_dim**0.5)
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(hidden_dim, dim_head, heads), feed_forward(hidden_dim)])
            for _ in range(depth)
        )
        for i in range(SCALES):
            setattr(self, f"mapping_{i}", _map(feature_dim, map_dim, map_dim, hidden_dim))
        inputs, outputs = embedding_dim + clip_dim, id_tokens * hidden_dim
        self.id_embedding_mapping = _map(inputs, map_dim, map_dim, outputs)

    def of_photos(self, id_embeds: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        """See `Projection`."""
        embeds, hidden = self._read(id_embeds, features)
        of_face = self.id_embedding_mapping(embeds).unflatten(-1, (self.id_tokens, -1)).flatten(1, 2)
        queries = torch.cat([self.latents.expand(len(embeds), -1, -1), of_face], 1)
        per_scale = len(self.layers) // SCALES
        for i in range(SCALES):
            of_scale = getattr(self, f"mapping_{i}")(hidden[:, :, i].flatten(1, 2))
            context = torch.cat([of_face, of_scale], 1)
            for layer in self.layers[i * per_scale : (i + 1) * per_scale]:
                attention, forward = cast(nn.ModuleList, layer)
                queries = attention(context, queries) + queries
                queries = forward(queries) + queries
        return queries[:, : self.latents.shape[1]] @ self.proj_out


def _map(inputs: int, first: int, second: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(inputs, first),
        nn.LayerNorm(first),
        nn.LeakyReLU(),
        nn.Linear(first, second),
        nn.LayerNorm(second),
        nn.LeakyReLU(),
        nn.Linear(second, outputs),
    )
