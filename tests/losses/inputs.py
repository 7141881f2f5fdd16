"""Small float64 inputs for losses, and cross-attention recordings made of numbers."""

from __future__ import annotations

from typing import Any

import torch

from idgen.losses import LayerRecord, Recording
from tests.components import seeded


def normal(*shape: int, seed: int) -> torch.Tensor:
    return torch.randn(*shape, generator=seeded(seed), dtype=torch.float64)


def recording(
    seed: int,
    query: torch.Tensor | None = None,
    key: torch.Tensor | None = None,
    text_output: torch.Tensor | None = None,
    output: torch.Tensor | None = None,
    identity_keys: list[torch.Tensor] | None = None,
) -> Recording:
    """Two layers, of 4 × 4 and 2 × 2 positions, batch 2, two heads of two numbers, 3 words, 2 people of 3 tokens.

    The tensors that are given are those of the first layer.
    """

    def layer(positions: int, seed: int) -> dict[str, Any]:
        names = ("query", "key", "text_output", "output")
        made = {n: normal(2, 3 if n == "key" else positions, 4, seed=10 * seed + i) for i, n in enumerate(names)}
        return {**made, "identity_keys": [normal(2, 2, 3, 2, seed=10 * seed + 5 + i) for i in range(2)]}

    given = {"query": query, "key": key, "text_output": text_output, "output": output, "identity_keys": identity_keys}
    first = layer(16, seed) | {name: tensor for name, tensor in given.items() if tensor is not None}
    return {"down.attn2": LayerRecord(**first, heads=2), "mid.attn2": LayerRecord(**layer(4, seed + 1), heads=2)}


def face_mask(seed: int = 5) -> torch.Tensor:
    """(2, 1, 4, 4), soft."""
    return torch.rand(2, 1, 4, 4, generator=seeded(seed), dtype=torch.float64)
