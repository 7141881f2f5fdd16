"""A Perceiver resampler (Flamingo, arXiv 2204.14198), with the parameter names of the published adapters."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import nn


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
            nn.ModuleList([PerceiverAttention(dim, dim_head, heads), feed_forward(dim)]) for _ in range(depth)
        )

    def forward(self, x: torch.Tensor, queries: torch.Tensor, positions: torch.Tensor | None = None) -> torch.Tensor:
        """(batch, n, input_dim), (batch, tokens, dim), and (1, n, dim) or nothing → (batch, tokens, output_dim)."""
        x = self.proj_in(x)
        x = x if positions is None else x + positions
        for layer in self.layers:
            attention, feed_forward = cast(nn.ModuleList, layer)
            queries = attention(x, queries) + queries
            queries = feed_forward(queries) + queries
        return self.norm_out(self.proj_out(queries))


def feed_forward(dim: int) -> nn.Sequential:
    """The feed-forward layer of a Perceiver, of four times the width inside."""
    return nn.Sequential(
        nn.LayerNorm(dim), nn.Linear(dim, 4 * dim, bias=False), nn.GELU(), nn.Linear(4 * dim, dim, bias=False)
    )
