"""Configurations and pickles that would need too much memory or time are refused first."""

from __future__ import annotations

import json
import time
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from idgen import IdentityAdapter, IdentityNet
from idgen.checkpoints import native, public
from idgen.checkpoints.building import check_config
from idgen.errors import CheckpointError, IdgenError
from tests.components import SMALL_PROJECTIONS, make_adapter, make_controlnet, make_unet

INSTANTID = """{"_class_name": "ControlNetModel", "_diffusers_version": "0.21.2", "act_fn": "silu",
"addition_embed_type": "text_time", "addition_embed_type_num_heads": 64, "addition_time_embed_dim": 256,
"attention_head_dim": [5, 10, 20], "block_out_channels": [320, 640, 1280], "class_embed_type": null,
"conditioning_channels": 3, "conditioning_embedding_out_channels": [16, 32, 96, 256],
"controlnet_conditioning_channel_order": "rgb", "cross_attention_dim": 2048,
"down_block_types": ["DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"], "downsample_padding": 1,
"encoder_hid_dim": null, "flip_sin_to_cos": true, "freq_shift": 0, "global_pool_conditions": false, "in_channels": 4,
"layers_per_block": 2, "mid_block_scale_factor": 1, "norm_eps": 1e-05, "norm_num_groups": 32,
"num_attention_heads": null, "only_cross_attention": false, "projection_class_embeddings_input_dim": 2816,
"resnet_time_scale_shift": "default", "transformer_layers_per_block": [1, 2, 10], "upcast_attention": null,
"use_linear_projection": true}"""
"""As older versions of diffusers wrote it; newer ones add names."""


def test_a_published_configuration_is_accepted() -> None:
    given = check_config(
        IdentityNet, json.loads(INSTANTID) | {"of_a_newer_version": 1}, "config.json", known_only=True
    )
    assert given["transformer_layers_per_block"] == (1, 2, 10)
    assert given["mid_block_scale_factor"] == 1.0


SIZES = {"depth": [10**6, 2**20, 10**400, float("nan"), 0], "heads": [2.5, 0], "hidden_dim": [1e308], "dim_head": [0]}
INVALID: list[dict[str, Any]] = [
    *({name: value} for name, values in SIZES.items() for value in values),  # as version 0.1 wrote them
    *({"projection": {name: value}} for name, values in SIZES.items() for value in values),
    *({"projection": value} for value in ("magic", 5, None, {"type": "magic"}, {"unknown": 1}, {"depth": {}})),
    *({"num_tokens": value} for value in (-1, 0)),
    *({"layers": value} for value in (1, {}, {"a": 1}, {"down_blocks.0.attn2": True})),
    *({"encoder": value} for value in (["a"], None, "x" * 5000)),
    *({"normalised": 1}, {"embedding_dim": "8"}, {"unknown": 1}),
]


@pytest.mark.parametrize("change", INVALID, ids=lambda value: str(value)[:40])
def test_invalid_adapters_are_refused_quickly(change: dict[str, Any], tmp_path: Path) -> None:
    adapter = make_adapter(make_unet(), projection=SMALL_PROJECTIONS["resampler"])
    adapter.save_pretrained(tmp_path / "folder")
    file = tmp_path / "folder" / "config.json"
    config = native.plain_config(adapter)
    if "projection" in change and isinstance(change["projection"], dict):
        change = {"projection": dict(config["projection"]) | change["projection"]}
    elif change.keys() & SIZES.keys():
        sizes = dict(config["projection"])
        change = {"projection": sizes.pop("type"), **sizes, **change}
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    places = [tmp_path / "folder"]
    if "layers" not in change:  # by which the tensors are named
        public.write(config | change, adapter.state_dict(), tmp_path / "a.safetensors")
        places.append(tmp_path / "a.safetensors")
    for place in places:
        start = time.process_time()
        with pytest.raises(IdgenError):
            IdentityAdapter.from_pretrained(place)
        assert time.process_time() - start < 5


@pytest.mark.parametrize(
    "change",
    [
        {"transformer_layers_per_block": 10**6},
        {"transformer_layers_per_block": [5000, 5000]},
        {"layers_per_block": 9**5},
    ],
    ids=str,
)
def test_invalid_nets_are_refused_quickly(change: dict[str, Any], tmp_path: Path) -> None:
    net: Any = IdentityNet.from_config(make_controlnet(make_unet()).config)
    net.save_pretrained(tmp_path)
    file = tmp_path / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    start = time.process_time()
    with pytest.raises(CheckpointError, match="more than 4,000 tensors"):
        IdentityNet.from_pretrained(tmp_path)
    assert time.process_time() - start < 8


def test_a_pickle_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    torch.save({"image_proj": {"a": torch.zeros(1 << 18)}, "ip_adapter": {}}, tmp_path / "plain.bin")
    with (
        zipfile.ZipFile(tmp_path / "plain.bin") as plain,
        zipfile.ZipFile(tmp_path / "a.bin", "w", zipfile.ZIP_DEFLATED) as packed,
    ):
        for name in plain.namelist():
            packed.writestr(name, plain.read(name))
    assert (tmp_path / "a.bin").stat().st_size < 10_000
    with pytest.raises(CheckpointError, match="packed"):
        IdentityAdapter.from_pretrained(tmp_path / "a.bin")


def test_a_tensor_that_repeats_its_numbers_is_refused(tmp_path: Path) -> None:
    torch.save({"image_proj": {"a": torch.zeros(1, 1).expand(1 << 16, 1 << 16)}, "ip_adapter": {}}, tmp_path / "a.bin")
    with pytest.raises(CheckpointError, match=r"take 17,179,869,184 bytes"):
        IdentityAdapter.from_pretrained(tmp_path / "a.bin")
