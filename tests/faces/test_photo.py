"""Every form in which users have photos gives the same pixels, or a clear error."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from idgen.errors import ImageError
from idgen.faces import load_photo
from idgen.faces.photo import MAX_PIXELS


@pytest.fixture(scope="module")
def image() -> Image.Image:
    """A smooth picture with a colour of its own in each corner."""
    y, x = np.mgrid[0:40, 0:60]
    return Image.fromarray(np.stack([4 * x, 6 * y, 255 - 4 * x], -1).astype(np.uint8))


def test_all_sources_agree(image: Image.Image, tmp_path: Path) -> None:
    array = np.asarray(image)
    image.save(path := tmp_path / "a.png")
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    for photo in (path, str(path), image, array, tensor, tensor / 255, array / 255, array.astype(np.uint16) * 257):
        np.testing.assert_array_equal(load_photo(photo), array)


@pytest.mark.parametrize("mode", ["L", "LA", "RGBA", "P", "CMYK", "YCbCr", "I;16", "I", "F", "1"])
def test_every_mode_becomes_rgb(image: Image.Image, mode: str) -> None:
    if mode == "I;16":
        source = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
        assert source.mode.startswith("I;16")
    else:
        source = image.quantize() if mode == "P" else image.convert(mode)
    rgb = load_photo(source)
    assert rgb.shape == (40, 60, 3)
    assert rgb.dtype == np.uint8
    expected = np.asarray((image if mode in ("RGBA", "P", "CMYK", "YCbCr") else image.convert("L")).convert("RGB"))
    tolerance = {"P": 24, "1": 255, "CMYK": 2, "YCbCr": 3}.get(mode, 1)
    assert np.abs(rgb.astype(int) - expected).max() <= tolerance


def test_exif_orientation_is_applied(image: Image.Image, tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image.save(path := tmp_path / "turned.png", exif=exif)
    np.testing.assert_array_equal(load_photo(path), np.asarray(image.transpose(Image.Transpose.ROTATE_270)))


def test_transparency_lies_over_white(image: Image.Image) -> None:
    image = image.convert("RGBA")
    image.putalpha(0)
    assert (load_photo(image) == 255).all()
    assert (load_photo(np.asarray(image)) == 255).all()


@pytest.mark.parametrize(
    ("photo", "message"),
    [
        ("missing.jpg", "no file"),
        (3, "path, bytes, a PIL image"),
        (np.zeros((4, 4, 2), np.uint8), "shape"),
        (np.zeros((0, 4, 3), np.uint8), "shape"),
        (np.full((4, 4, 3), np.nan), "finite"),
        (np.full((4, 4, 3), 3.0), r"\[0, 1\]"),
        (np.zeros((4, 4, 3), np.int64), "uint8"),
        (torch.zeros(2, 3, 4, 4), "shape"),
    ],
)
def test_bad_input_says_why(photo: object, message: str) -> None:
    with pytest.raises(ImageError, match=message):
        load_photo(photo)  # pyright: ignore[reportArgumentType]


def test_damaged_files(image: Image.Image, tmp_path: Path) -> None:
    (text := tmp_path / "a.txt").write_text("hello")
    with pytest.raises(ImageError, match="not a picture"):
        load_photo(text)
    with pytest.raises(ImageError, match="not a picture"):
        load_photo(tmp_path)
    image.resize((600, 400)).save(whole := tmp_path / "a.jpg")
    (half := tmp_path / "half.jpg").write_bytes(whole.read_bytes()[:2000])
    with pytest.raises(ImageError, match="truncated"):
        load_photo(half)


def test_decompression_bomb_is_refused_before_it_is_opened(tmp_path: Path) -> None:
    side = int(MAX_PIXELS**0.5) + 1
    Image.new("1", (side, side)).save(path := tmp_path / "bomb.png")
    with pytest.raises(ImageError, match=r"pixels|bomb"):
        load_photo(path)
