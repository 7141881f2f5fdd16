"""PhotoMaker's files as published: names and shapes, filled with random numbers. Written from the public layout."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

from .published import Published

Attentions = Mapping[str, tuple[int, int]]
"""Path of each attention layer → its width, and the width of what keys and values are made of."""

_SDXL_BLOCKS = (("down_blocks.1", 2, 2, 640), ("down_blocks.2", 2, 10, 1280), ("up_blocks.0", 3, 10, 1280))
_SDXL_BLOCKS += (("up_blocks.1", 3, 2, 640), ("mid_block", 1, 10, 1280))
SDXL_ATTENTIONS: Attentions = {
    f"{block}.attentions.{i}.transformer_blocks.{j}.attn{kind}": (width, width if kind == 1 else 2048)
    for block, attentions, depth, width in _SDXL_BLOCKS
    for i in range(attentions)
    for j in range(depth)
    for kind in (1, 2)
}


def attentions_of(unet: Any) -> Attentions:
    """The attention layers of a UNet."""
    found = {}
    for name in unet.attn_processors:
        layer = unet.get_submodule(name.removesuffix(".processor"))
        found[name.removesuffix(".processor")] = layer.inner_dim, layer.cross_attention_dim
    return found


@dataclass
class PhotoMakerFile(Published):
    """`photomaker-v1` or `photomaker-v2`; `image` is the width of the image encoder, whose heads are 64 wide."""

    attentions: Attentions = field(default_factory=lambda: SDXL_ATTENTIONS)
    image: int = 1024
    image_layers: int = 24
    side: int = 224
    first: int = 768
    rank: int = 64

    @property
    def is_v2(self) -> bool:
        return self.variant == "photomaker-v2"

    def make(self) -> dict[str, dict[str, torch.Tensor]]:
        self.generator = torch.Generator().manual_seed(self.seed)
        encoder = self.vision() | self.fuse()
        encoder |= self.linear("visual_projection", self.first, self.image, bias=False)
        encoder |= self.linear("visual_projection_2", self.cross - self.first, self.image, bias=False)
        return {"id_encoder": encoder | (self.qformer() if self.is_v2 else {}), "lora_weights": self.lora()}

    def vision(self) -> dict[str, torch.Tensor]:
        dim, places = self.image, (self.side // 14) ** 2 + 1
        found = {
            "embeddings.class_embedding": self.random(dim),
            "embeddings.patch_embedding.weight": self.random(dim, 3, 14, 14, scale=0.05),
            "embeddings.position_embedding.weight": self.random(places, dim, scale=0.5),
        }
        found |= self.norm("pre_layrnorm", dim) | self.norm("post_layernorm", dim)
        for i in range(self.image_layers):
            at = f"encoder.layers.{i}"
            for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
                found |= self.linear(f"{at}.self_attn.{part}", dim, dim)
            found |= self.norm(f"{at}.layer_norm1", dim) | self.norm(f"{at}.layer_norm2", dim)
            found |= self.linear(f"{at}.mlp.fc1", 4 * dim, dim) | self.linear(f"{at}.mlp.fc2", dim, 4 * dim)
        if self.device == "meta":  # a digest of the vectors is read
            found = {name: torch.ones(len(each)) if each.ndim == 1 else each for name, each in found.items()}
        return {f"vision_model.{name}": tensor for name, tensor in found.items()}

    def fuse(self) -> dict[str, torch.Tensor]:
        found, dim = self.norm("layer_norm", self.cross), self.cross
        for name, into in (("mlp1", 2 * dim), ("mlp2", dim)):
            found |= self.norm(f"{name}.layernorm", into)
            found |= self.linear(f"{name}.fc1", dim, into) | self.linear(f"{name}.fc2", dim, dim)
        return {f"fuse_module.{name}": tensor for name, tensor in found.items()}

    def qformer(self) -> dict[str, torch.Tensor]:
        hidden = 4 * self.embedding
        found = self.linear("token_proj.0", hidden, self.embedding)
        found |= self.linear("token_proj.2", 2 * self.cross, hidden) | self.norm("token_norm", self.cross)
        perceiver = self.perceiver(self.cross, self.image, self.cross)
        found |= {f"perceiver_resampler.{name}": tensor for name, tensor in perceiver.items()}
        return {f"qformer_perceiver.{name}": tensor for name, tensor in found.items()}

    def lora(self) -> dict[str, torch.Tensor]:
        found = {}
        for path, (width, context) in self.attentions.items():
            for part, into in (("q", width), ("k", context), ("v", context), ("out", width)):
                name = f"unet.{path}.processor.to_{part}_lora"
                found[f"{name}.down.weight"] = self.random(self.rank, into)
                found[f"{name}.up.weight"] = self.random(width, self.rank, scale=0.1)
        return found


PHOTOMAKER = [
    PhotoMakerFile("photomaker-v1", "photomaker-v1.bin", [], 2048),
    PhotoMakerFile("photomaker-v2", "photomaker-v2.bin", [], 2048, tokens=2),
]
"""Both files."""


def tiny_photomaker(variant: str, unet: Any, cross: int = 128, **changes: Any) -> PhotoMakerFile:
    """A small file for a UNet; heads of v2's resampler are 128 wide, so it has one."""
    sizes: dict[str, Any] = {
        "embedding": 8,
        "image": 128,
        "image_layers": 2,
        "side": 28,
        "first": cross // 4,
        "rank": 3,
        "depth": 2,
    }
    return PhotoMakerFile(variant, f"{variant}.bin", [], cross, attentions=attentions_of(unet), **(sizes | changes))
