"""PuLID's files for SDXL as published: names and shapes, filled with random numbers, from the public layout."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from .published import SDXL, Published, flat


@dataclass
class PuLIDFile(Published):
    """`pulid-v1` or `pulid-v1.1`; `clip` is the length of the image embedding, `width` that of hidden states, and
    `dim` the width of v1.1's queries, whose heads are 64 wide. Repacked files have IP-Adapter's names."""

    width: int = 1024
    is_repacked: bool = False

    def make(self) -> dict[str, dict[str, torch.Tensor]]:
        self.generator = torch.Generator().manual_seed(self.seed)
        encoder = self.v1() if self.variant == "pulid-v1" else self.v1_1()
        layers = {
            f"{2 * i + 1}.{name}.weight": self.random(hidden, self.cross)
            for i, hidden in enumerate(self.hidden)
            for name in (("to_k_ip", "to_v_ip") if self.is_repacked else ("id_to_k", "id_to_v"))
        }
        names = ("image_proj", "ip_adapter") if self.is_repacked else ("id_adapter", "id_adapter_attn_layers")
        return dict(zip(names, (encoder, layers), strict=True))

    def write(self, folder: Path) -> Path:
        path, tensors = folder / self.name, flat(self.make())
        save_file(tensors, path) if path.suffix == ".safetensors" else torch.save(tensors, path)
        return path

    def mapping(self, name: str, *widths: int) -> dict[str, torch.Tensor]:
        """Three linear layers, two norms; the activations have no tensors."""
        found = {}
        for slot, (into, out) in zip((0, 3, 6), pairwise(widths), strict=True):
            found |= self.linear(f"{name}.{slot}", out, into)
            found |= {} if slot == 6 else self.norm(f"{name}.{slot + 1}", out)
        return found

    def v1(self) -> dict[str, torch.Tensor]:
        outputs = 5 * self.cross
        found = self.mapping(
            "body", self.embedding + self.clip, min(outputs // 4, 1024), min(outputs // 2, 1024), outputs
        )
        for i in range(5):
            for name in (f"mapping_{i}", f"mapping_patch_{i}"):
                found |= self.mapping(name, self.width, self.width, self.width, self.cross)
        return found

    def v1_1(self) -> dict[str, torch.Tensor]:
        resampler = self.perceiver(self.dim, self.dim, self.cross)
        found = {name: tensor for name, tensor in resampler.items() if name.startswith("layers.")}
        found |= {"latents": self.random(1, self.tokens, self.dim, scale=1.0)}
        found |= {"proj_out": self.random(self.dim, self.cross, scale=0.1 / self.dim**0.5)}
        for i in range(5):
            found |= self.mapping(f"mapping_{i}", self.width, self.width, self.width, self.dim)
        inputs = self.embedding + self.clip
        return found | self.mapping("id_embedding_mapping", inputs, self.width, self.width, 5 * self.dim)


SIZES: dict[str, Any] = {"clip": 768, "dim": 1024, "depth": 10}
PULID = [
    PuLIDFile("pulid-v1", "pulid_v1.bin", SDXL, 2048, tokens=10, **SIZES),
    PuLIDFile("pulid-v1.1", "pulid_v1.1.safetensors", SDXL, 2048, tokens=32, **SIZES),
    PuLIDFile("pulid-v1", "ip-adapter_pulid_sdxl_fp16.safetensors", SDXL, 2048, tokens=10, is_repacked=True, **SIZES),
]


def tiny_pulid(variant: str, name: str = "adapter.bin", **changes: Any) -> PuLIDFile:
    sizes = {"hidden": [16, 32, 32, 32, 16, 16, 32], "cross": 64, "clip": 6, "width": 12, "dim": 64, "depth": 10}
    sizes["tokens"] = 10 if variant == "pulid-v1" else 7
    return PuLIDFile(variant, name, **(sizes | changes))
