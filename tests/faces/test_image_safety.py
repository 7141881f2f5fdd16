"""Whatever a file holds, opening it gives pixels or an `ImageError`, soon and within memory, and starts no program."""

from __future__ import annotations

import importlib
import io
import os
import random
import sys
import time
import warnings
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from idgen.errors import ImageError
from idgen.faces import load_photo
from idgen.faces.image_file import FORMATS, MAX_BYTES

from .image_files import encode, files, mutate, picture, png_chunk, tiff

CASES = 300
SECONDS, GIGABYTE = 10, 1 << 30


def _many_tags() -> bytes:
    """560 KB, of which 5,000 tags are 500 KB each."""
    rest = 14 + 12 * 5008
    tags = [(256, 4, 1, 10), (257, 4, 1, 10), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, rest)]
    tags += [(278, 4, 1, 10), (279, 4, 1, 100)]
    return tiff(tags + [(40_000 + i, 1, 500_000, rest) for i in range(5000)], bytes(500_000))


def _repeated_tags() -> bytes:
    tags = [(256, 4, 1, 10), (257, 4, 1, 10), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    return tiff(tags + [(i, 1, 500_000, 5000) for i in range(280, 600)], bytes(500_000))


def _huge_tile() -> bytes:
    packed = zlib.compress(bytes(200_000_000), 1)
    tags = [(256, 4, 1, 10), (257, 4, 1, 10), (258, 3, 1, 8), (259, 3, 1, 8), (262, 3, 1, 1), (277, 3, 1, 1)]
    tags += [(322, 4, 1, 20_000), (323, 4, 1, 10_000), (324, 4, 1, 14 + 12 * 10), (325, 4, 1, len(packed))]
    return tiff(tags, packed)


def _many_scans() -> bytes:
    whole = encode(Image.new("L", (9000, 9000)), "JPEG", progressive=True)
    return whole[:-2] + whole[whole.rfind(b"\xff\xda") : -2] * 200 + whole[-2:]


def _many_chunks() -> bytes:
    whole = encode(picture(), "PNG")
    return whole[:33] + png_chunk(b"tEXt", b"") * 1_000_000 + whole[33:]


BOMBS: dict[str, tuple[Callable[[], bytes], str | None]] = {
    "tags that share their bytes": (_many_tags, None),
    "tags that take more than the file": (_repeated_tags, "more bytes than the file"),
    "a tile of 200 MB": (_huge_tile, "too long"),
    "a JPEG of 200 passes": (_many_scans, "too long"),
    "a million chunks": (_many_chunks, "chunks"),
    "a large WebP": (lambda: encode(Image.new("L", (8_000, 6_300)), "WEBP", lossless=True, method=0), "pixels"),
    "a PNG of 100 megapixels": (lambda: encode(Image.new("1", (10_000, 10_000)), "PNG"), "pixels"),
}


@pytest.mark.parametrize("kind", BOMBS)
def test_small_files_do_not_become_large_or_slow(kind: str) -> None:
    make, message = BOMBS[kind]
    data = make()
    assert len(data) < 20_000_000
    with _limits(), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if message is None:
            load_photo(data)
        else:
            with pytest.raises(ImageError, match=message):
                load_photo(data)


@pytest.mark.parametrize("kind", ["RGB", "RGBA", "progressive", "WEBP", "AVIF", "I;16", "CMYK"])
@pytest.mark.skipif("not config.getoption('fuzz')", reason="takes a minute; asked for by --fuzz")
def test_the_largest_photos_that_are_opened_fit_a_gigabyte(kind: str) -> None:
    limit = next((row.max_pixels for row in FORMATS if row.name == kind), FORMATS[0].max_pixels)
    size = limit // 8000, 8000
    form = {"RGB": "JPEG", "progressive": "JPEG", "CMYK": "JPEG", "RGBA": "PNG", "I;16": "PNG"}.get(kind, kind)
    mode = kind if kind in ("RGBA", "CMYK", "I;16") else "RGB"
    options = {"progressive": {"progressive": True, "subsampling": 0}, "AVIF": {"speed": 10}, "WEBP": {"method": 0}}
    data = encode(Image.new(mode, size), form, **options.get(kind, {}))
    with _limits(30):
        assert load_photo(data).shape == (*size[::-1], 3)


def test_mutated_files(request: pytest.FixtureRequest) -> None:
    """Raw errors 0, over 1 GB 0, over 10 s 0."""
    draw, seeds = random.Random(17), files()
    opened = refused = 0
    cases = request.config.getoption("fuzz") or CASES
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for number in range(cases):
            kind = draw.choice([*seeds])
            data = mutate(seeds[kind], draw)
            try:
                with _limits():
                    pixels = load_photo(data)
            except ImageError:
                refused += 1
            except Exception as error:
                raise AssertionError(f"case {number}, a damaged {kind}") from error
            else:
                opened += 1
                assert pixels.dtype == np.uint8
                assert pixels.ndim == 3
                assert pixels.shape[2] == 3
    print(f"{cases} mutated files: {opened} opened, {refused} refused")
    assert min(opened, refused) > cases // 10


class _limits:  # noqa: N801
    """Fails where the block takes more than ten seconds or a gigabyte more than the process had."""

    def __init__(self, seconds: float = SECONDS) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        if sys.platform == "linux":
            Path("/proc/self/clear_refs").write_text("5")  # the peak begins anew
        self.memory, self.start = _memory("VmRSS"), time.perf_counter()

    def __exit__(self, *_: object) -> None:
        assert time.perf_counter() - self.start < self.seconds
        assert _memory("VmHWM") - self.memory < GIGABYTE


def _memory(field: str) -> int:
    if sys.platform != "linux":
        return 0
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(field))


@pytest.fixture
def ghostscript(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is there once `gs` was started."""
    if sys.platform == "win32":
        pytest.skip("the program is a shell script")
    started, program = tmp_path / "started", tmp_path / "bin" / "gs"
    program.parent.mkdir()
    program.write_text(f"#!/bin/sh\ntouch '{started}'\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:{os.environ['PATH']}")
    monkeypatch.setattr("PIL.EpsImagePlugin.gs_binary", None)  # Pillow remembers whether there is one
    return started


def test_eps_never_starts_ghostscript(ghostscript: Path, tmp_path: Path) -> None:
    (path := tmp_path / "anna.jpg").write_bytes(encode(picture(), "EPS"))
    for photo in (path, path.read_bytes(), Image.open(path)):
        with pytest.raises(ImageError, match=r"EPS|not a picture"):
            load_photo(photo)
    assert not ghostscript.exists()
    with pytest.raises(OSError, match="cannot identify"):
        Image.open(path).load()
    assert ghostscript.exists()  # the trap works


def test_in_the_demo_no_library_starts_ghostscript(ghostscript: Path) -> None:
    """Gradio opens what its editor sends, with all of Pillow's formats."""
    import idgen.demo.uploads

    importlib.reload(idgen.demo.uploads)  # other tests may have imported it before the trap was set
    with pytest.raises(OSError, match="Ghostscript"):
        Image.open(io.BytesIO(encode(picture(), "EPS"))).load()
    assert not ghostscript.exists()


@pytest.mark.parametrize("form", ["PPM", "TGA", "ICO", "PCX", "JPEG2000", "PSD"])
def test_other_formats_are_refused_by_name(form: str) -> None:
    data = b"8BPS\0\1" + bytes(40) if form == "PSD" else encode(picture(), form)
    with pytest.raises(ImageError, match="JPEG, PNG, WEBP, TIFF"):
        load_photo(data)


def test_what_is_not_a_file(tmp_path: Path) -> None:
    places = [
        tmp_path,
        tmp_path / "none.png",
        "a\0b",
        "/dev/zero",
        tmp_path / ("x" * 300),
        "\udcff",
        tmp_path / "f" / "g",
    ]
    (tmp_path / "f").write_bytes(b"a file, not a folder")
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.jpg")
        places.append(tmp_path / "pipe.jpg")
    (sparse := tmp_path / "film.jpg").touch()
    os.truncate(sparse, 100 * MAX_BYTES)
    for place in [*places, sparse]:
        with _limits(1), pytest.raises(ImageError):
            load_photo(place)
