"""What a picture's file says, and what its pixels say."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from idgen.errors import ImageError, MissingDependencyError, ProvenanceError
from idgen.provenance import add_watermark, mark, read_settings, read_watermark
from idgen.provenance.metadata import KEYWORD, open_picture, write_png

SETTINGS = {
    "prompt": "a façade, 東京",
    "seed": 7,
    "scale": {"down": 0.2, "up": 1},
    "adapter": None,
    "guess_mode": False,
}


@pytest.fixture
def picture(astronaut: np.ndarray) -> Image.Image:
    return Image.fromarray(astronaut)


def jpeg(image: Image.Image, quality: int) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=quality)
    return Image.open(buffer)


def test_settings_come_back_and_pixels_stay(picture: Image.Image, tmp_path: Path) -> None:
    content = write_png(picture, SETTINGS)
    assert read_settings(content) == SETTINGS
    (tmp_path / "a.png").write_bytes(content)
    assert read_settings(tmp_path / "a.png") == SETTINGS
    assert np.array_equal(np.asarray(open_picture(content)), np.asarray(picture))


@pytest.mark.parametrize("value", [torch.randn(128), [0.1, 0.2], np.zeros(3), {"embedding": [1.0]}, float("nan")])
def test_embeddings_of_blocked_people_are_refused(picture: Image.Image, value: object) -> None:
    with pytest.raises(ProvenanceError, match="secret"):
        write_png(picture, {"secret": value})


def test_pictures_without_settings(picture: Image.Image, tmp_path: Path) -> None:
    picture.save(tmp_path / "plain.png")
    picture.save(tmp_path / "plain.jpg")
    assert read_settings(tmp_path / "plain.png") is None
    assert read_settings(tmp_path / "plain.jpg") is None


@pytest.mark.parametrize("text", ["{", "[1]", '"idgen"'])
def test_damaged_settings_are_an_error(picture: Image.Image, text: str) -> None:
    chunk = PngInfo()
    chunk.add_itxt(KEYWORD, text)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=chunk)
    with pytest.raises(ProvenanceError, match="settings in the picture"):
        read_settings(buffer.getvalue())


def test_a_text_that_unpacks_to_gigabytes_is_refused(picture: Image.Image) -> None:
    chunk = PngInfo()
    chunk.add_itxt(KEYWORD, " " * 50_000_000, zip=True)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", pnginfo=chunk)
    assert len(buffer.getvalue()) < 2_000_000
    with pytest.raises(ProvenanceError, match="compressed"):
        read_settings(buffer.getvalue())


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n"])
def test_not_a_picture(content: bytes) -> None:
    with pytest.raises(ImageError, match="not a picture"):
        read_settings(content)


@pytest.mark.parametrize("size", [(64, 64), (96, 160)])
def test_a_watermark_is_seen_by_the_program_alone(picture: Image.Image, size: tuple[int, int]) -> None:
    plain = picture.resize(size)
    marked = add_watermark(plain)
    assert marked.size == size
    assert read_watermark(marked).agreeing >= 31
    assert not read_watermark(plain).found
    change = np.abs(np.asarray(marked, np.float32) - np.asarray(plain, np.float32))
    assert 0.5 < change.mean() < 3


def test_a_watermark_stands_jpeg_resizing_and_cropping(picture: Image.Image) -> None:
    side = 512
    marked = add_watermark(picture.resize((side, side)))
    edge = side // 8
    for changed in (
        jpeg(marked, 75),
        marked.resize((side // 2, side // 2)),
        marked.crop((edge, edge, side - edge, side)),
    ):
        assert read_watermark(changed).found


def test_mark_does_both_and_watermarks_are_left_out_by_name(picture: Image.Image) -> None:
    both, settings_only = mark(picture, SETTINGS), mark(picture, SETTINGS, watermark=False)
    assert read_watermark(open_picture(both)).found
    assert not read_watermark(open_picture(settings_only)).found
    assert np.array_equal(np.asarray(open_picture(settings_only)), np.asarray(picture))
    for content in (both, settings_only):
        told = read_settings(content)
        assert told is not None
        assert told.pop("generator").startswith("idgen ")
        assert told == SETTINGS


def test_what_to_install_is_said(picture: Image.Image, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "imwatermark", None)
    with pytest.raises(MissingDependencyError, match=r"idgen-diffusers\[provenance\].*--no-watermark"):
        mark(picture, {})
