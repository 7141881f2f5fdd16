"""A photo looks the same whatever its container, its orientation, its colour profile and its other metadata."""

from __future__ import annotations

import random
import struct
import sys
import zlib
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image

from idgen.errors import ImageError
from idgen.faces import load_photo
from idgen.faces.image_file import image_format

from .image_files import encode, exif, files, matrix_profile, picture, png_chunk, tiff

SRGB = np.array(
    [[0.4360747, 0.3850649, 0.1430804], [0.2225045, 0.7168786, 0.0606169], [0.0139322, 0.0971045, 0.7141733]]
)
ADOBE = np.array([[0.6097559, 0.205240, 0.149224], [0.3111242, 0.625656, 0.0632197], [0.0194811, 0.060890, 0.744839]])
P3 = np.array([[0.515102, 0.291965, 0.157153], [0.241182, 0.692236, 0.066582], [-0.001050, 0.041882, 0.784378]])
"""XYZ of red, green and blue as columns, under D50 (Lindbloom, by Bradford's transform)."""


@pytest.mark.parametrize("kind", files())
def test_every_format_is_opened_as_it_looks(kind: str) -> None:
    grey = kind.startswith(("wide", "deflate", "grey"))
    turns = 3 if kind in ("jpeg", "png", "webp", "tiff", "avif", "heic") else 2 if kind == "big.tiff" else 0
    expected = np.rot90(np.asarray((picture().convert("L") if grey else picture()).convert("RGB")), turns)
    found = load_photo(files()[kind])
    assert found.shape == expected.shape
    assert np.abs(found.astype(int) - expected).mean() < (25 if kind in ("palette.png", "gif") else 6)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_orientation(form: str, orientation: int) -> None:
    options = {"lossless": True} if form == "WEBP" else {"quality": 95} if form in ("JPEG", "AVIF") else {}
    turned = load_photo(encode(picture(), form, exif=exif(orientation), **options))
    names = [
        "NONE",
        "FLIP_LEFT_RIGHT",
        "ROTATE_180",
        "FLIP_TOP_BOTTOM",
        "TRANSPOSE",
        "ROTATE_270",
        "TRANSVERSE",
        "ROTATE_90",
    ]
    turn = Image.Transpose[names[orientation - 1]] if orientation > 1 else None
    expected = np.asarray(picture() if turn is None else picture().transpose(turn))
    assert np.abs(turned.astype(int) - expected).mean() < 3


@pytest.mark.parametrize("gamma", [2.19921875, 1.8])
@pytest.mark.parametrize("primaries", [ADOBE, P3], ids=["adobe", "p3"])
@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF", "WEBP", "AVIF", "HEIF"])
def test_colours_are_converted_to_srgb(form: str, primaries: np.ndarray, gamma: float) -> None:
    """By the definition of the profile, written out: curve, primaries, and the way back through those of sRGB."""
    blocks = np.random.default_rng(0).integers(70, 190, (4, 6, 3), np.uint8).repeat(16, 0).repeat(16, 1)
    linear = (blocks / 255) ** gamma @ (np.linalg.inv(SRGB) @ primaries).T
    encoded = np.where(linear > 0.0031308, 1.055 * linear.clip(1e-9) ** (1 / 2.4) - 0.055, 12.92 * linear)
    expected = (encoded.clip(0, 1) * 255).round()
    options = {"quality": 100} | ({"subsampling": 0} if form == "JPEG" else {})
    options = {"lossless": True} if form == "WEBP" else {} if form in ("PNG", "TIFF") else options
    file = encode(Image.fromarray(blocks), form, icc_profile=matrix_profile(primaries, gamma), **options)
    middle = np.s_[8::16, 8::16]
    exact = form in ("PNG", "TIFF", "WEBP")
    assert np.abs(load_photo(file).astype(int) - expected)[middle].max() <= (2 if exact else 8)
    assert np.abs(blocks.astype(int) - expected)[middle].max() > 12  # there was something to convert


def test_a_profile_of_srgb_changes_no_pixel() -> None:
    assert np.array_equal(load_photo(files()["png"]), np.rot90(np.asarray(picture()), 3))


def _with_png_chunks(*chunks: bytes) -> bytes:
    whole = encode(picture(), "PNG")
    return whole[:33] + b"".join(chunks) + whole[33:]


def _with_jpeg_segments(*segments: bytes) -> bytes:
    whole = encode(picture(), "JPEG", quality=95)
    return whole[:2] + b"".join(s[:2] + struct.pack(">H", len(s)) + s[2:] for s in segments) + whole[2:]


def _with_webp_exif(content: bytes) -> bytes:
    return encode(picture(), "WEBP", lossless=True, exif=content, icc_profile=content, xmp=content)


BOMB = zlib.compress(bytes(3_000_000))
JUNK = random.Random(0).randbytes(400)
METADATA: dict[str, Callable[[], bytes]] = {
    "text of 3 MB": lambda: _with_png_chunks(png_chunk(b"tEXt", b"workflow\0" + b"x" * 3_000_000)),
    "text of 70 MB": lambda: _with_png_chunks(*[png_chunk(b"tEXt", b"workflow\0" + b"x" * 2_000_000)] * 35),
    "packed text of 3 MB": lambda: _with_png_chunks(png_chunk(b"zTXt", b"prompt\0\0" + BOMB)),
    "packed itxt of 3 MB": lambda: _with_png_chunks(png_chunk(b"iTXt", b"XML:com.adobe.xmp\0\1\0\0\0" + BOMB)),
    "profile of 3 MB": lambda: _with_png_chunks(png_chunk(b"iCCP", b"Photoshop\0\0" + BOMB)),
    "damaged profile": lambda: _with_png_chunks(png_chunk(b"iCCP", b"x\0\0" + zlib.compress(JUNK))),
    "damaged exif": lambda: _with_png_chunks(png_chunk(b"eXIf", JUNK)),
    "short chunks": lambda: _with_png_chunks(
        *[png_chunk(kind, b"\1") for kind in (b"pHYs", b"gAMA", b"cHRM", b"acTL")]
    ),
    "wrong checksum": lambda: _with_png_chunks(png_chunk(b"tEXt", b"a\0b", right=False)),
    "jpeg with damaged exif": lambda: _with_jpeg_segments(b"\xff\xe1Exif\0\0" + JUNK, b"\xff\xe1Exif\0\0II*\0" + JUNK),
    "jpeg with damaged xmp": lambda: _with_jpeg_segments(b"\xff\xe1http://ns.adobe.com/xap/1.0/\0" + JUNK),
    "jpeg with a damaged profile": lambda: _with_jpeg_segments(b"\xff\xe2ICC_PROFILE\0\1\1" + JUNK),
    "jpeg with damaged mpf": lambda: _with_jpeg_segments(
        b"\xff\xe2MPF\0II*\0" + JUNK, b"\xff\xedPhotoshop 3.0\0" + JUNK
    ),
    "jpeg with 20 MB of segments": lambda: _with_jpeg_segments(*[b"\xff\xed" + bytes(60_000)] * 333),
    "webp with damaged metadata": lambda: _with_webp_exif(b"Exif\0\0II*\0" + JUNK),
    "tiff with a damaged directory": lambda: _damaged_tiff(),
    "avif with damaged exif": lambda: _damaged_avif(),
}


def _damaged_avif() -> bytes:
    block = exif(1)
    whole = encode(picture(), "AVIF", quality=95, exif=block)
    assert block.removeprefix(b"Exif\0\0")[:8] in whole
    return whole.replace(block.removeprefix(b"Exif\0\0")[:8], b"brokenXX")


def _damaged_tiff() -> bytes:
    """EXIF at the end of the file, and a profile and XMP that reach beyond it."""
    pixels = np.asarray(picture()).tobytes()
    tags = [(256, 4, 1, 60), (257, 4, 1, 40), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 2), (273, 4, 1, 158)]
    tags += [(277, 3, 1, 3), (278, 4, 1, 40), (279, 4, 1, len(pixels)), (700, 1, 900_000, 99), (34675, 7, 900_000, 99)]
    return tiff([*tags, (34665, 4, 1, 10_000_000)], pixels)


@pytest.mark.parametrize("kind", METADATA)
def test_pixels_decide(kind: str) -> None:
    """Metadata that are huge or damaged cost nothing."""
    found = load_photo(METADATA[kind]())
    assert np.abs(found.astype(int) - np.asarray(picture())).mean() < 3


def test_heic_without_its_extra_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    with pytest.raises(ImageError, match=r"\[heic\]") as caught:
        load_photo(files()["heic"])
    assert caught.value.reason == "needs-heic"


def test_formats_are_told_by_content() -> None:
    suffixes = {kind: row.suffix for kind, data in files().items() if (row := image_format(data))}
    assert suffixes.keys() == files().keys()
    assert suffixes["mpo"] == "jpg"  # so that readers of tars decode it
    assert suffixes["heic"] == "heic"
    assert suffixes["avif"] == "avif"
