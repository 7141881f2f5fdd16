"""FaceChain-FACT's file as published: a flat mapping of names and shapes, filled with random numbers."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from idgen.adapter import cross_attention_layers

from .published import SD15, Published, flat

SD15_PATHS = [
    *(f"down_blocks.{i}.attentions.{j}" for i in range(3) for j in range(2)),
    *(f"up_blocks.{i}.attentions.{j}" for i in (1, 2, 3) for j in range(3)),
    "mid_block.attentions.0",
]


@dataclass
class FACTFile(Published):
    """`layers` are the paths of the cross-attention layers, and `dim` the width of the resampler; its 12 heads in the
    published file are 64 wide, which is less than the whole width."""

    layers_: list[str] = field(default_factory=lambda: [f"{path}.transformer_blocks.0.attn2" for path in SD15_PATHS])
    heads: int = 12

    def make(self) -> dict[str, Any]:
        self.generator = torch.Generator().manual_seed(self.seed)
        found = {"local_fac_prj": self.resampler()}
        inner = 64 * self.heads
        for i in range(self.depth):
            shapes = {"to_q": (inner, self.dim), "to_kv": (2 * inner, self.dim), "to_out": (self.dim, inner)}
            for name, shape in shapes.items():
                found["local_fac_prj"][f"layers.{i}.0.{name}.weight"] = self.random(*shape)
        for path, hidden in zip(self.layers_, self.hidden, strict=True):
            found[f"{path}.processor"] = self.gated(hidden)
        return found

    def gated(self, dim: int) -> dict[str, torch.Tensor]:
        found = self.linear("linear", dim, self.cross) | self.linear("attn.to_out.0", dim, dim)
        found |= self.linear("ff.net.0.proj", 8 * dim, dim) | self.linear("ff.net.2", dim, 4 * dim)
        found |= self.norm("norm1", dim) | self.norm("norm2", dim)
        for part in "qkv":
            found |= self.linear(f"attn.to_{part}", dim, dim, bias=False)
        return found | {name: self.random(1)[0] for name in ("alpha_attn", "alpha_dense")}

    def write(self, folder: Path) -> Path:
        torch.save(flat(self.make()), folder / self.name)
        return folder / self.name


FACT = FACTFile(
    "facechain-fact",
    "adapter_maj_mask_large_new_reg001_faceshuffle_00290001.ckpt",
    SD15,
    768,
    tokens=16,
    dim=1024,
)


def tiny_fact(unet: torch.nn.Module, name: str = "adapter.bin", **changes: Any) -> FACTFile:
    layers = cross_attention_layers(unet)
    sizes = {"hidden": [layer.inner_dim for layer in layers.values()], "cross": 64, "embedding": 8, "dim": 64}
    sizes |= {"depth": 2, "heads": 1, "tokens": 3, "layers_": list(layers)}
    return FACTFile("facechain-fact", name, **(sizes | changes))  # pyright: ignore[reportArgumentType]
