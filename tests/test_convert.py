"""Adapters in all their forms: folder of ours, one file with an IdentityNet in it, the field's pickle."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from idgen import IdentityAdapter, IdentityNet
from idgen.checkpoints.layout import known_layers
from idgen.convert import convert
from idgen.errors import CheckpointError
from tests.checkpoints.published import Published, flat
from tests.components import make_unet

LAYERS = [*known_layers(16).values()]
SMALL: dict[str, Any] = {"embedding": 4, "cross": 8, "rank": 1, "dim": 64, "depth": 1, "tokens": 2}


@pytest.fixture
def instantid(tmp_path: Path) -> Path:
    """A folder like `InstantX/InstantID`, narrow but with SD1.5's layers."""
    folder = tmp_path / "InstantID"
    folder.mkdir()
    Published("instantid", "ip-adapter.bin", LAYERS, **SMALL).write(folder)
    torch.manual_seed(0)
    net = IdentityNet.from_unet(make_unet(cross_attention_dim=8), conditioning_embedding_out_channels=(8, 8))
    net.half().save_pretrained(folder / "ControlNetModel")
    return folder


def test_instantid_becomes_one_file_and_a_folder(instantid: Path, tmp_path: Path) -> None:
    published = flat(torch.load(instantid / "ip-adapter.bin", weights_only=True))
    net = load_file(instantid / "ControlNetModel" / "diffusion_pytorch_model.safetensors")

    one, folder, back = tmp_path / "one.safetensors", tmp_path / "ours", tmp_path / "back.safetensors"
    assert convert(str(instantid), one) == ["adapter", "identity_net"]
    convert(str(one), folder)
    convert(str(folder), back)
    expected = published | {f"identity_net.{name}": tensor for name, tensor in net.items()}
    for file in (one, back):
        found = load_file(file)
        assert found.keys() == expected.keys()
        assert all(torch.equal(found[name], expected[name]) for name in expected)
        assert all(found[name].dtype == expected[name].dtype for name in expected)
    from_file, from_folder = (
        IdentityNet.from_pretrained(one),
        IdentityNet.from_pretrained(folder, subfolder="identity_net"),
    )
    assert from_file.config["cross_attention_dim"] == from_folder.config["cross_attention_dim"] == 8
    assert all(torch.equal(a.half(), net[name]) for name, a in from_folder.state_dict().items())
    assert IdentityAdapter.from_pretrained(one).config["encoder"] == "insightface/antelopev2"


def test_pickle_for_other_programs(tmp_path: Path, instantid: Path) -> None:
    file = Published("faceid", "ip-adapter-faceid_sd15.bin", LAYERS, **SMALL).write(tmp_path)
    convert(str(file), tmp_path / "ours")
    convert(str(tmp_path / "ours"), tmp_path / "again.bin")
    before, after = (torch.load(f, weights_only=True) for f in (file, tmp_path / "again.bin"))
    assert {part: list(tensors) for part, tensors in after.items()}.keys() == before.keys()
    assert all(torch.equal(flat(before)[name], tensor) for name, tensor in flat(after).items())
    with pytest.raises(CheckpointError, match="IdentityNet"):
        convert(str(instantid), tmp_path / "net.bin")
    assert not (tmp_path / "net.bin").exists()


def test_a_file_without_a_net(tmp_path: Path) -> None:
    file = Published("faceid", "ip-adapter-faceid_sd15.bin", LAYERS, **SMALL).write(tmp_path)
    assert convert(str(file), tmp_path / "one.safetensors") == ["adapter"]
    with pytest.raises(CheckpointError, match="identity_net"):
        IdentityNet.from_pretrained(tmp_path / "one.safetensors")
