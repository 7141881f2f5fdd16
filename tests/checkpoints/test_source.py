"""Which file is meant: in folders, and in hub repositories, here in a hub cache without a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from idgen import IdentityAdapter
from idgen.checkpoints.source import find
from idgen.errors import CheckpointError

from .test_public import tiny, unet

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    """A hub cache that holds two repositories."""
    for repo, names in {
        "models--InstantX--InstantID": ["ip-adapter.bin", "ControlNetModel/config.json"],
        "models--h94--IP-Adapter-FaceID": ["ip-adapter-faceid_sd15.bin", "ip-adapter-faceid_sdxl.bin"],
    }.items():
        snapshot = tmp_path / repo / "snapshots" / COMMIT
        for name in names:
            (snapshot / name).parent.mkdir(parents=True, exist_ok=True)
            (snapshot / name).touch()
        (tmp_path / repo / "refs").mkdir()
        (tmp_path / repo / "refs" / "main").write_text(COMMIT)
    return tmp_path


def test_the_only_file_of_a_repository(cache: Path) -> None:
    tiny("instantid", "ip-adapter.bin").write(cache / "models--InstantX--InstantID" / "snapshots" / COMMIT)
    where = {"cache_dir": cache, "local_files_only": True}
    found = find("InstantX/InstantID", **where)
    assert found is not None
    assert found.name == "ip-adapter.bin"
    adapter = IdentityAdapter.from_pretrained("InstantX/InstantID", unet=unet(), **where)
    assert adapter.config["encoder"] == "insightface/antelopev2"  # told by the repository's name


def test_several_files_need_a_name(cache: Path) -> None:
    where = {"cache_dir": cache, "local_files_only": True}
    with pytest.raises(CheckpointError, match=r"2 files .*faceid_sd15.bin.*weight_name"):
        find("h94/IP-Adapter-FaceID", **where)
    found = find("h94/IP-Adapter-FaceID", "ip-adapter-faceid_sdxl.bin", **where)
    assert found is not None
    assert found.name == "ip-adapter-faceid_sdxl.bin"
    with pytest.raises(CheckpointError, match="Check the name"):
        find("h94/IP-Adapter-FaceID", "no-such-file.bin", **where)


def test_folders(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="0 files"):
        find(tmp_path)
    (tmp_path / "a.bin").touch()
    assert find(tmp_path) == tmp_path / "a.bin"
    (tmp_path / "b.safetensors").touch()
    with pytest.raises(CheckpointError, match=r"a\.bin, b\.safetensors"):
        find(tmp_path)
    assert find(tmp_path, "b.safetensors") == tmp_path / "b.safetensors"
    with pytest.raises(CheckpointError, match=r"no 'c.bin'"):
        find(tmp_path, "c.bin")
    assert find(tmp_path / "a.bin") == tmp_path / "a.bin"
