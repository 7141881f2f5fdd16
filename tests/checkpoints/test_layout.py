"""The numbering of layers against diffusers' own, at full size."""

from __future__ import annotations

import pytest
import torch
from diffusers import UNet2DConditionModel

from idgen.adapter import cross_attention_layers
from idgen.checkpoints.layout import known_layers, numbered
from idgen.errors import CheckpointError

SD15 = {"cross_attention_dim": 768, "attention_head_dim": 8}
SDXL = {
    "cross_attention_dim": 2048,
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "attention_head_dim": (5, 10, 20),
    "use_linear_projection": True,
}


@pytest.mark.parametrize(("config", "count"), [(SD15, 16), (SDXL, 70)])
def test_numbers_are_places_among_attention_processors(config, count: int) -> None:
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config)
    processors = [name.removesuffix(".processor") for name in unet.attn_processors]
    layers = {path: layer.inner_dim for path, layer in cross_attention_layers(unet).items()}
    assert known_layers(count) == layers
    assert numbered(reversed(layers)) == {path: processors.index(path) for path in layers}
    assert all(processors[number - 1] == path[:-1] + "1" for path, number in numbered(layers).items())


def test_other_bases_need_their_unet() -> None:
    with pytest.raises(CheckpointError, match="unet="):
        known_layers(7)
