"""Adapters as files: saving and loading give the same adapter, and errors name tensors that do not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from idgen import IdentityAdapter, IdentityNet
from idgen.checkpoints import native
from idgen.errors import CheckpointError, IdgenError
from tests.components import SMALL_PROJECTIONS, make_adapter, make_unet

WEIGHTS = "diffusion_pytorch_model.safetensors"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    make_adapter(make_unet()).save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter"


@pytest.mark.parametrize("projection", SMALL_PROJECTIONS)
def test_round_trip(projection: str, tmp_path: Path) -> None:
    words = {"num_words": 2, "text_dims": [4], "adaptive_words": True}
    adapter = make_adapter(
        make_unet(), projection=SMALL_PROJECTIONS[projection], num_tokens=6, normalised=True, **words
    )
    adapter.save_pretrained(tmp_path)
    again = IdentityAdapter.from_pretrained(tmp_path)
    weights = again.state_dict()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in adapter.state_dict().items())
    assert {k: v for k, v in again.config.items() if k[0] != "_"} == {
        k: v for k, v in adapter.config.items() if k[0] != "_"
    }
    assert not again.training
    again.attach(make_unet())


def test_files(folder: Path) -> None:
    assert {file.name for file in folder.iterdir()} == {"config.json", WEIGHTS, "README.md"}
    card = (folder / "README.md").read_text()
    assert "`test`, raw embeddings of length 8" in card
    assert card.startswith("---\nlibrary_name: diffusers\n")


def test_saving_is_atomic(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def full_disk(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("diffusers.models.modeling_utils.safetensors.torch.save_file", full_disk)
    with pytest.raises(CheckpointError, match=r"No space.*Free disk space"):
        make_adapter(make_unet(), seed=9).save_pretrained(folder)
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


@pytest.mark.parametrize("change", ["missing", "unexpected", "shape"])
def test_tensors_that_do_not_fit_are_named(folder: Path, change: str) -> None:
    weights = load_file(folder / WEIGHTS)
    name = "to_tokens.norm.bias"
    tensor = weights.pop(name)
    if change == "unexpected":
        weights |= {name: tensor, "surplus.weight": tensor.clone()}
    elif change == "shape":
        weights[name] = torch.zeros(3)
    save_file(weights, folder / WEIGHTS)
    with pytest.raises(CheckpointError, match=name if change != "unexpected" else r"surplus\.weight"):
        IdentityAdapter.from_pretrained(folder)


def test_pickles_are_refused(folder: Path) -> None:
    torch.save(load_file(folder / WEIGHTS), folder / "diffusion_pytorch_model.bin")
    (folder / WEIGHTS).unlink()
    with pytest.raises(CheckpointError, match="pickle"):
        IdentityAdapter.from_pretrained(folder)


def test_damaged_files(folder: Path) -> None:
    content = (folder / WEIGHTS).read_bytes()
    (folder / WEIGHTS).write_bytes(content[: len(content) // 2])
    with pytest.raises(CheckpointError, match="could not be opened"):
        IdentityAdapter.from_pretrained(folder)
    (folder / WEIGHTS).write_bytes(content)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"projection": "magic"}))
    with pytest.raises(IdgenError, match="magic"):
        IdentityAdapter.from_pretrained(folder)


def test_hub_id_that_cannot_be_reached() -> None:
    with pytest.raises(CheckpointError, match="neither a folder, a file nor a reachable hub repository"):
        IdentityAdapter.from_pretrained("nobody/no-such-adapter", local_files_only=True)


def test_push_to_hub(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the two calls that need the network are replaced."""
    uploaded: dict[str, Any] = {}

    class Repository:
        repo_id = "anna/adapter"

    def upload(repo_id: str, folder_path: str, **kwargs: Any) -> str:
        uploaded[repo_id] = {file.name for file in Path(folder_path).iterdir()}
        for card in Path(folder_path).glob("README.md"):
            assert 'load_id_adapter("anna/adapter")' in card.read_text()
        return f"https://hub/{repo_id}/commit/1"

    monkeypatch.setattr(native, "create_repo", lambda *_, **__: Repository)
    monkeypatch.setattr(native, "upload_folder", upload)
    assert make_adapter(make_unet()).push_to_hub("adapter").endswith("anna/adapter/commit/1")
    assert uploaded == {"anna/adapter": {"config.json", WEIGHTS, "README.md"}}
    net = IdentityNet.from_unet(make_unet(), conditioning_embedding_out_channels=(8, 8))
    assert net.push_to_hub("net", private=True).endswith("anna/adapter/commit/1")
    assert uploaded == {"anna/adapter": {"config.json", WEIGHTS}}


def test_a_setting_that_is_not_known_is_refused(folder: Path) -> None:
    """A misspelt one would otherwise count as not given."""
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "normalized": True}))
    with pytest.raises(CheckpointError, match="normalized"):
        IdentityAdapter.from_pretrained(folder)
