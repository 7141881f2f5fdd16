"""Learned parts of the contrastive loss: heads, gates on dimensions, and a temperature for each pair."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import LossError
from .precision import full_precision

HIDDEN = 128
SPREAD = math.log(4)
"""A pair's temperature is between a quarter and four times that of the loss."""


class LearnedSimilarity(nn.Module):
    """How embeddings of a frozen face encoder are compared, learned together with the adapter.

    - heads: linear maps of the embedding, one for each head (AMCL, arXiv 2310.05615, whose heads are MLPs). They start
      as slices of the embedding.
    - gates: a factor `2 σ(θ)` for each dimension, which starts at 1. Hydra learns gates on dimensions; this formula
      is our reading.
    - temperature: `τᵢⱼ = τ · exp(ln 4 · tanh φ([zᵢ, zⱼ]))` with an MLP φ for each head, which starts at τ. AMCL
      (`adaptive_temperature.py`) maps φ to a fixed interval instead, and regularises with
      `β ((d/2) ln τᵢⱼ + 1/τᵢⱼ)`. Here it is `ln r + 1/r − 1` with `r = τᵢⱼ/τ`, which is 0 at r = 1.

    Args:
        dim: Length of an embedding.
        heads: Number of heads, a divisor of it.
        parts: The parts that are learned.

    Raises:
        LossError: A part is not known, or the heads do not divide the embedding.
    """

    def __init__(self, dim: int, heads: int = 1, parts: Sequence[str] = ("heads", "gates", "temperature")) -> None:
        super().__init__()
        if unknown := {*parts} - {"heads", "gates", "temperature"}:
            raise LossError(f"'{min(unknown)}' cannot be learned; use heads, gates or temperature.")
        if dim % heads:
            raise LossError(f"{heads} heads do not divide an embedding of length {dim}.")
        width = dim // heads
        self.gates = nn.Parameter(torch.zeros(dim)) if "gates" in parts else None
        self.heads = nn.Parameter(torch.eye(dim).view(heads, width, dim).clone()) if "heads" in parts else None
        self.temperatures = None
        if "temperature" in parts:
            self.temperatures = nn.ModuleList([_PairNetwork(width) for _ in range(heads)])
        self.count = heads

    def split(self, embeds: torch.Tensor) -> list[torch.Tensor]:
        """(…, dim) → the heads' embeddings, (…, dim / heads) each."""
        if self.gates is not None:
            embeds = embeds * (2 * self.gates.sigmoid()).to(embeds)
        if self.heads is None:
            return list(embeds.chunk(self.count, -1))
        with full_precision(embeds):
            return [F.linear(embeds, head.to(embeds)) for head in self.heads]

    def relative_temperature(self, head: int, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """τᵢⱼ/τ of pairs.

        Args:
            head: Number of the head.
            a: (batch, width).
            b: (n, width) or (batch, n, width).

        Returns:
            (batch, n); a single 1 if the temperature is not learned.
        """
        if self.temperatures is None:
            return torch.ones((), device=a.device)
        with full_precision(a):
            return (SPREAD * self.temperatures[head](a, b).tanh()).exp()


class _PairNetwork(nn.Module):
    """A two-layer network on a pair of embeddings of unit length. It starts at 0."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(2 * width, HIDDEN)
        self.second = nn.Linear(HIDDEN, 1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """(batch, width), (n, width) or (batch, n, width) → (batch, n)."""
        of_a, of_b = self.first.weight.chunk(2, 1)  # the layer on [a, b] is the sum of one on a and one on b
        a, b = (F.normalize(x, dim=-1).to(of_a.dtype) for x in (a, b))
        return self.second(F.relu(F.linear(a, of_a, self.first.bias)[:, None] + F.linear(b, of_b))).squeeze(-1)
