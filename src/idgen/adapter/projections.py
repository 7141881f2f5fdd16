"""Projections: identity embedding → tokens that cross-attention reads.

`PROJECTIONS` is the table of all types. To add one, write a subclass of `Projection` and add its row: configurations,
checkpoints, `idgen info`, `idgen train --projection` and the documentation read the table. Parameter names of the
built-in types are those of the published checkpoints.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, cast

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import AdapterError


class Projection(nn.Module, ABC):
    """Projects an identity embedding to tokens.

    The constructor takes `embedding_dim`, `num_tokens` and `cross_attention_dim`. Its other arguments, integers or
    bools with a default, are sizes that the configuration of an adapter can set. The first line of the docstring
    describes the type in the documentation.

    Attributes:
        reads_features: Whether the projection reads CLIP features of the face; it then has a size `feature_dim`.
    """

    reads_features: ClassVar[bool] = False

    @abstractmethod
    def forward(self, id_embeds: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        """Project embeddings to tokens.

        Args:
            id_embeds: (batch, embedding_dim).
            features: (batch, n, feature_dim), for a projection that reads them.

        Returns:
            (batch, num_tokens, cross_attention_dim).
        """

    def standardise_input(self, embeddings: torch.Tensor) -> None:
        """Initialise the projection for the mean and deviation of embeddings; does nothing by default.

        Args:
            embeddings: (people, embedding_dim).
        """


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


@torch.no_grad()
def standardise_linear(linear: nn.Linear, embeddings: torch.Tensor) -> None:
    """Change a linear layer so that it reads embeddings as it read inputs of mean 0 and deviation 1 before.

    Embeddings of some encoders (dlib's) differ little between people. Without this a new layer takes long to see the
    difference. With fewer than two people the layer does not change.

    Args:
        linear: The layer.
        embeddings: (people, dim).
    """
    if len(embeddings) < 2:
        return
    embeddings = embeddings.to(linear.weight)
    linear.weight.div_(embeddings.std(0).clamp(min=1e-6))
    linear.bias.sub_(linear.weight @ embeddings.mean(0))


class PerceiverAttention(nn.Module):
    """Latents attend to the input and to themselves (Flamingo, arXiv 2204.14198)."""

    def __init__(self, dim: int, dim_head: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(dim)
        self.norm2 = nn.LayerNorm(dim)
        self.to_q = nn.Linear(dim, dim_head * heads, bias=False)
        self.to_kv = nn.Linear(dim, 2 * dim_head * heads, bias=False)
        self.to_out = nn.Linear(dim_head * heads, dim, bias=False)

    def forward(self, x: torch.Tensor, latents: torch.Tensor) -> torch.Tensor:
        """(batch, n, dim), (batch, tokens, dim) → (batch, tokens, dim)."""
        x, latents = self.norm1(x), self.norm2(latents)
        key, value = self.to_kv(torch.cat([x, latents], 1)).chunk(2, -1)
        query, key, value = (
            y.unflatten(-1, (self.heads, -1)).transpose(1, 2) for y in (self.to_q(latents), key, value)
        )
        return self.to_out(F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2))


class PerceiverResampler(nn.Module):
    """Perceiver layers in which queries attend to an input of any length."""

    def __init__(self, dim: int, depth: int, dim_head: int, heads: int, input_dim: int, output_dim: int) -> None:
        super().__init__()
        self.proj_in = nn.Linear(input_dim, dim)
        self.proj_out = nn.Linear(dim, output_dim)
        self.norm_out = nn.LayerNorm(output_dim)
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(dim, dim_head, heads), _feed_forward(dim)]) for _ in range(depth)
        )

    def forward(self, x: torch.Tensor, queries: torch.Tensor) -> torch.Tensor:
        """(batch, n, input_dim), (batch, tokens, dim) → (batch, tokens, output_dim)."""
        x = self.proj_in(x)
        for layer in self.layers:
            attention, feed_forward = cast(nn.ModuleList, layer)
            queries = attention(x, queries) + queries
            queries = feed_forward(queries) + queries
        return self.norm_out(self.proj_out(queries))


def _feed_forward(dim: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(dim), nn.Linear(dim, 4 * dim, bias=False), nn.GELU(), nn.Linear(4 * dim, dim, bias=False)
    )


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


PROJECTIONS: dict[str, type[Projection]] = {
    "mlp": MLPProjection,
    "resampler": ResamplerProjection,
    "plus": PlusProjection,
}
