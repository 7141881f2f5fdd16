"""The picture of an index that an edited picture was made from."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageEnhance, ImageFilter, ImageOps

from idgen import cli
from idgen.errors import CheckpointError, ProvenanceError
from idgen.provenance import LatentReader, PictureIndex
from tests.components import make_vae

PICTURES = 100


@pytest.fixture(scope="module")
def pictures(astronaut: np.ndarray) -> dict[str, Image.Image]:
    """Parts of the photo, which resemble each other, as drawn faces do."""
    random = np.random.default_rng(0)
    corners = random.integers(0, 512 - 160, (PICTURES + 10, 2))
    parts = [Image.fromarray(astronaut[top : top + 160, left : left + 160]).resize((64, 64)) for top, left in corners]
    return {f"{number}.png": part for number, part in enumerate(parts)}


@pytest.fixture(scope="module")
def reader() -> LatentReader:
    return LatentReader("tiny")


@pytest.fixture(scope="module")
def index(pictures: dict[str, Image.Image], reader: LatentReader) -> PictureIndex:
    return PictureIndex.of(list(pictures.items())[:PICTURES], reader)


def test_edited_pictures_are_found_and_others_are_not(
    pictures: dict[str, Image.Image], reader: LatentReader, index: PictureIndex
) -> None:
    known, unknown = list(pictures.values())[:20], list(pictures.values())[PICTURES:]
    edits: dict[str, Callable[[Image.Image], Image.Image]] = {
        "none": lambda picture: picture,
        "mirrored": ImageOps.mirror,
        "darker": lambda picture: ImageEnhance.Brightness(picture).enhance(0.7),
        "enlarged": lambda picture: picture.resize((200, 130)),
        "blurred": lambda picture: picture.filter(ImageFilter.GaussianBlur(1)),
    }
    for name, edit in edits.items():
        for number, (best,) in enumerate(index.find([edit(picture) for picture in known], reader, 1)):
            assert best.name == f"{number}.png", name
            assert best.score > 0.999 or name != "none"
    assert max(origins[0].score for origins in index.find(unknown, reader)) < 0.999


def test_adding_pictures_is_as_indexing_them_at_once_and_a_name_is_there_once(
    pictures: dict[str, Image.Image], reader: LatentReader, index: PictureIndex
) -> None:
    named = list(pictures.items())
    more = PictureIndex.of(named[PICTURES - 5 :], reader, index)
    assert more.names == tuple(pictures)
    new = PictureIndex.of(named[PICTURES:], reader)
    torch.testing.assert_close(more.latents, torch.cat([index.latents, new.latents]))
    changed = PictureIndex.of([("0.png", pictures["7.png"])], reader, index)
    assert len(changed) == PICTURES
    twice = changed.find([pictures["7.png"]], reader, 2)[0]
    assert {origin.name for origin in twice} == {"0.png", "7.png"}
    assert all(origin.score >= changed.threshold for origin in twice)
    assert changed.threshold == pytest.approx(index.threshold, abs=0.1)


@pytest.mark.parametrize("count", [1, 2, 5])
def test_a_small_index_names_no_origin_of_other_pictures(
    count: int, pictures: dict[str, Image.Image], reader: LatentReader
) -> None:
    named = list(pictures.items())
    small = PictureIndex.of(named[:count], reader)
    for name, picture in named[:count]:
        assert small.find([picture], reader)[0][0].name == name
        assert small.find([picture], reader)[0][0].score >= small.threshold
    others = small.find([picture for _, picture in named[count : count + 20]], reader)
    assert np.mean([origins[0].score >= small.threshold for origins in others]) < 0.1


def test_an_index_comes_back_from_its_file_and_is_of_one_vae(
    index: PictureIndex, reader: LatentReader, pictures: dict[str, Image.Image], tmp_path: Path
) -> None:
    index.save(tmp_path / "index.safetensors")
    again = PictureIndex.load(tmp_path / "index.safetensors")
    assert (again.names, again.network, again.threshold) == (index.names, index.network, index.threshold)
    make_vae().save_pretrained(tmp_path / "base" / "vae")
    other = LatentReader(str(tmp_path / "base"))
    with pytest.raises(ProvenanceError, match="made with the VAE of 'tiny'"):
        again.find([pictures["0.png"]], other)
    with pytest.raises(ProvenanceError, match="no pictures"):
        PictureIndex.of([], reader)
    (tmp_path / "bad.safetensors").write_bytes((tmp_path / "index.safetensors").read_bytes()[:200])
    with pytest.raises(CheckpointError):
        PictureIndex.load(tmp_path / "bad.safetensors")


def test_commands_index_folders_and_find_the_origin(
    pictures: dict[str, Image.Image],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(*arguments: object) -> str:
        monkeypatch.setattr(sys, "argv", ["idgen", *map(str, arguments)])
        cli.main()
        return capsys.readouterr().out

    monkeypatch.chdir(tmp_path)
    (tmp_path / "drawn" / "deep").mkdir(parents=True)
    for number in range(4):
        pictures[f"{number}.png"].save(tmp_path / "drawn" / "deep" / f"{number}.png")
    assert run("index", "drawn").strip() == "index.safetensors"
    pictures["2.png"].save(tmp_path / "found.jpg", quality=80)
    said = run("origin", "found.jpg", "--count", 2).splitlines()
    assert said[0].startswith("found (threshold ")
    assert said[1].endswith("drawn/deep/2.png")
    assert len(said) == 3
    assert b"PNG" not in (tmp_path / "index.safetensors").read_bytes()
    pictures["9.png"].save(tmp_path / "other.png")
    assert run("origin", "other.png").startswith("not found")
