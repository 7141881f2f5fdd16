"""Files as the field has published them: names and shapes, filled with random numbers. Written from the public
layouts, not from our reader."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

SD15 = [320] * 2 + [640] * 2 + [1280] * 2 + [1280] * 3 + [640] * 3 + [320] * 3 + [1280]
SDXL = [640] * 4 + [1280] * 20 + [1280] * 30 + [640] * 6 + [1280] * 10


@dataclass
class Published:
    """One public file: `hidden` is the width of each cross-attention layer, in the order down, up, middle."""

    variant: str
    name: str
    hidden: Sequence[int]
    cross: int
    tokens: int = 4
    embedding: int = 512
    clip: int = 1280
    rank: int = 128
    dim: int = 1280
    depth: int = 4
    device: str = "cpu"
    seed: int = 0
    generator: torch.Generator = field(init=False)

    def make(self) -> dict[str, dict[str, torch.Tensor]]:
        self.generator = torch.Generator().manual_seed(self.seed)
        kind = {"instantid": self.resampler, "faceid-portrait-unnorm": self.resampler}.get(self.variant, self.mlp)
        return {"image_proj": kind(), "ip_adapter": self.layers()}

    def write(self, folder: Path) -> Path:
        torch.save(self.make(), folder / self.name)
        return folder / self.name

    def random(self, *shape: int, scale: float | None = None) -> torch.Tensor:
        if self.device == "meta":
            return torch.empty(shape, device="meta")
        usual = 0.5 if len(shape) == 1 else 1.5 / shape[-1] ** 0.5
        return torch.randn(shape, generator=self.generator) * (usual if scale is None else scale)

    def linear(self, name: str, out: int, into: int, bias: bool = True) -> dict[str, torch.Tensor]:
        found = {f"{name}.weight": self.random(out, into)}
        return found | ({f"{name}.bias": self.random(out)} if bias else {})

    def norm(self, name: str, dim: int) -> dict[str, torch.Tensor]:
        return {f"{name}.weight": 1 + self.random(dim), f"{name}.bias": self.random(dim)}

    def perceiver(self, dim: int, into: int, out: int) -> dict[str, torch.Tensor]:
        found = self.linear("proj_in", dim, into) | self.linear("proj_out", out, dim) | self.norm("norm_out", out)
        for i in range(self.depth):
            found |= self.norm(f"layers.{i}.0.norm1", dim) | self.norm(f"layers.{i}.0.norm2", dim)
            found |= self.linear(f"layers.{i}.0.to_q", dim, dim, bias=False)
            found |= self.linear(f"layers.{i}.0.to_kv", 2 * dim, dim, bias=False)
            found |= self.linear(f"layers.{i}.0.to_out", dim, dim, bias=False)
            found |= self.norm(f"layers.{i}.1.0", dim)
            found |= self.linear(f"layers.{i}.1.1", 4 * dim, dim, bias=False)
            found |= self.linear(f"layers.{i}.1.3", dim, 4 * dim, bias=False)
        return found

    def resampler(self) -> dict[str, torch.Tensor]:
        latents = self.random(1, self.tokens, self.dim, scale=1.0)
        return {"latents": latents} | self.perceiver(self.dim, self.embedding, self.cross)

    def mlp(self) -> dict[str, torch.Tensor]:
        hidden = 2 * self.embedding
        found = self.linear("proj.0", hidden, self.embedding) | self.linear("proj.2", self.cross * self.tokens, hidden)
        found |= self.norm("norm", self.cross)
        if "plus" in self.variant:
            perceiver = self.perceiver(self.cross, self.clip, self.cross)
            found |= {f"perceiver_resampler.{name}": tensor for name, tensor in perceiver.items()}
        return found

    def layers(self) -> dict[str, torch.Tensor]:
        lora = self.variant in ("faceid", "faceid-plus", "faceid-plusv2")
        found: dict[str, torch.Tensor] = {}
        for i, hidden in enumerate(self.hidden):
            for number, context in ((2 * i, hidden), (2 * i + 1, self.cross)) if lora else ():
                for part, into in (("q", hidden), ("k", context), ("v", context), ("out", hidden)):
                    found[f"{number}.to_{part}_lora.down.weight"] = self.random(self.rank, into)
                    found[f"{number}.to_{part}_lora.up.weight"] = self.random(hidden, self.rank, scale=0.1)
            found[f"{2 * i + 1}.to_k_ip.weight"] = self.random(hidden, self.cross)
            found[f"{2 * i + 1}.to_v_ip.weight"] = self.random(hidden, self.cross)
        return found


FULL = [
    Published("instantid", "ip-adapter.bin", SDXL, 2048, tokens=16),
    Published("faceid", "ip-adapter-faceid_sd15.bin", SD15, 768),
    Published("faceid", "ip-adapter-faceid_sdxl.bin", SDXL, 2048),
    Published("faceid-plus", "ip-adapter-faceid-plus_sd15.bin", SD15, 768),
    Published("faceid-plusv2", "ip-adapter-faceid-plusv2_sd15.bin", SD15, 768),
    Published("faceid-plusv2", "ip-adapter-faceid-plusv2_sdxl.bin", SDXL, 2048),
    Published("faceid-portrait", "ip-adapter-faceid-portrait_sd15.bin", SD15, 768, tokens=16),
    Published("faceid-portrait", "ip-adapter-faceid-portrait-v11_sd15.bin", SD15, 768, tokens=16),
    Published("faceid-portrait", "ip-adapter-faceid-portrait_sdxl.bin", SDXL, 2048, tokens=16),
    Published("faceid-portrait-unnorm", "ip-adapter-faceid-portrait_sdxl_unnorm.bin", SDXL, 2048, tokens=16),
]
"""Every file of the two families."""


def flat(nested: dict[str, dict[str, Any]]) -> dict[str, Any]:
    return {f"{part}.{name}": tensor for part, tensors in nested.items() for name, tensor in tensors.items()}
