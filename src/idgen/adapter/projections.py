"""Identity → tokens that cross-attention reads. Parameter names are those of the published checkpoints."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import AdapterError


def make_projection(
    kind: str,
    embedding_dim: int,
    num_tokens: int,
    cross_attention_dim: int,
    hidden_dim: int | None,
    depth: int,
    dim_head: int,
    heads: int | None,
    feature_dim: int,
    shortcut: bool,
) -> MLPProjection | Resampler:
    """The projection that an adapter's configuration names; see `IdentityAdapter` for the arguments.

    Raises:
        AdapterError: There is none of this name.
    """
    mlp_dim = hidden_dim or 2 * embedding_dim
    if kind == "mlp":
        return MLPProjection(embedding_dim, num_tokens, cross_attention_dim, mlp_dim)
    if kind == "resampler":
        dim = hidden_dim or 1280
        heads = heads or dim // dim_head
        return Resampler(dim, depth, dim_head, heads, num_tokens, embedding_dim, cross_attention_dim)
    if kind == "plus":
        heads = heads or max(1, cross_attention_dim // dim_head)
        return PlusProjection(
            embedding_dim, num_tokens, cross_attention_dim, mlp_dim, feature_dim, depth, dim_head, heads, shortcut
        )
    raise AdapterError(f"projection={kind!r} is not known; use 'mlp', 'resampler' or 'plus'.")


class MLPProjection(nn.Module):
    """Two linear layers and a layer norm (IP-Adapter-FaceID)."""

    def __init__(self, embedding_dim: int, num_tokens: int, cross_attention_dim: int, hidden_dim: int) -> None:
        super().__init__()
        self.num_tokens = num_tokens
        self.proj = nn.Sequential(
            nn.Linear(embedding_dim, hidden_dim),
            nn.GELU(),
            nn.Linear(hidden_dim, num_tokens * cross_attention_dim),
        )
        self.norm = nn.LayerNorm(cross_attention_dim)

    @torch.no_grad()
    def standardise_input(self, embeddings: torch.Tensor) -> None:
        """Start with a first layer that reads these embeddings as if each number had mean 0 and deviation 1.

        Embeddings of some encoders (dlib's) differ little from person to person beside what all have in common, and an
        ordinary start would take long to see the difference. Embeddings: (people, embedding_dim), as the adapter
        reads them.
        """
        first = self.proj[0]
        assert isinstance(first, nn.Linear)
        standardise_linear(first, embeddings)

    def forward(self, id_embeds: torch.Tensor) -> torch.Tensor:
        """(batch, embedding_dim) → (batch, num_tokens, cross_attention_dim)."""
        return self.norm(self.proj(id_embeds).unflatten(-1, (self.num_tokens, -1)))


@torch.no_grad()
def standardise_linear(first: nn.Linear, embeddings: torch.Tensor) -> None:
    """Change a map so that it does to embeddings, (people, dim), what it did to numbers of mean 0 and deviation 1.

    One person differs from nobody: the map then stays as it is.
    """
    if len(embeddings) < 2:
        return
    embeddings = embeddings.to(first.weight)
    first.weight.div_(embeddings.std(0).clamp(min=1e-6))
    first.bias.sub_(first.weight @ embeddings.mean(0))


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


class Resampler(nn.Module):
    """Perceiver layers that turn any number of input vectors into as many tokens as there are queries.

    With learned queries it is InstantID's projection; without (`num_tokens=0`) the queries come with each call, as in
    IP-Adapter-FaceID-Plus.
    """

    def __init__(
        self,
        dim: int,
        depth: int,
        dim_head: int,
        heads: int,
        num_tokens: int,
        input_dim: int,
        output_dim: int,
        ff_mult: int = 4,
    ) -> None:
        super().__init__()
        if num_tokens:
            self.latents = nn.Parameter(torch.randn(1, num_tokens, dim) / dim**0.5)
        self.proj_in = nn.Linear(input_dim, dim)
        self.proj_out = nn.Linear(dim, output_dim)
        self.norm_out = nn.LayerNorm(output_dim)
        self.layers = nn.ModuleList(
            nn.ModuleList([PerceiverAttention(dim, dim_head, heads), _feed_forward(dim, ff_mult)])
            for _ in range(depth)
        )

    def forward(self, x: torch.Tensor, queries: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, n, input_dim), optional queries (batch, tokens, dim) → (batch, tokens, output_dim)."""
        latents = self.latents.expand(len(x), -1, -1) if queries is None else queries
        x = self.proj_in(x)
        for layer in self.layers:
            attention, feed_forward = cast(nn.ModuleList, layer)
            latents = attention(x, latents) + latents
            latents = feed_forward(latents) + latents
        return self.norm_out(self.proj_out(latents))


def _feed_forward(dim: int, mult: int) -> nn.Sequential:
    return nn.Sequential(
        nn.LayerNorm(dim), nn.Linear(dim, dim * mult, bias=False), nn.GELU(), nn.Linear(dim * mult, dim, bias=False)
    )


class PlusProjection(MLPProjection):
    """Identity tokens that look at CLIP features of the face (IP-Adapter-FaceID-Plus and PlusV2).

    `shortcut` adds the identity tokens to what they found, which is V2; `shortcut_scale` is what the findings count
    beside them.
    """

    def __init__(
        self,
        embedding_dim: int,
        num_tokens: int,
        cross_attention_dim: int,
        hidden_dim: int,
        feature_dim: int,
        depth: int,
        dim_head: int,
        heads: int,
        shortcut: bool,
    ) -> None:
        super().__init__(embedding_dim, num_tokens, cross_attention_dim, hidden_dim)
        self.shortcut = shortcut
        self.shortcut_scale = 1.0
        self.perceiver_resampler = Resampler(
            cross_attention_dim, depth, dim_head, heads, 0, feature_dim, cross_attention_dim
        )

    def forward(self, id_embeds: torch.Tensor, features: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, embedding_dim), (batch, n, feature_dim) → (batch, num_tokens, cross_attention_dim)."""
        if features is None:
            raise ValueError("This projection reads CLIP features of the face beside the embedding.")
        tokens = super().forward(id_embeds)
        found = self.perceiver_resampler(features, tokens)
        return tokens + self.shortcut_scale * found if self.shortcut else found
