"""Opens untrusted image files: an allow-list of formats, and limits before decoding.

Pillow alone would pass an EPS to Ghostscript, wait for a named pipe, and decode a small TIFF into gigabytes.
"""

from __future__ import annotations

import io
import os
import re
import stat
from collections.abc import Callable
from typing import Any, NamedTuple

from PIL import Image, UnidentifiedImageError

from ..errors import ImageError
from .containers import Parts, exif_orientation, split_bmff, split_jpeg, split_png, split_tiff

MAX_PIXELS = 89_478_485
"""Limit of the pixels of an image, which is Pillow's own: 256 MiB in memory."""

MAX_BYTES = 1 << 28
"""Limit of the bytes of a file."""

MAX_WORK = 2_000_000_000
"""Limit of pixels times decoding passes: a progressive JPEG of some kilobytes can have thousands of passes."""


class Format(NamedTuple):
    """A row of `FORMATS`.

    Attributes:
        name: Name in Pillow.
        suffix: Suffix of its files.
        magic: Their first bytes.
        split: Separates the metadata.
        max_pixels: Limit of the pixels, lower for decoders that need more than eight bytes per pixel.
    """

    name: str
    suffix: str
    magic: re.Pattern[bytes]
    split: Callable[[bytes], Parts] = Parts
    max_pixels: int = MAX_PIXELS


FORMATS = (
    Format("JPEG", "jpg", re.compile(rb"\xff\xd8\xff"), split_jpeg),
    Format("PNG", "png", re.compile(rb"\x89PNG\r\n\x1a\n"), split_png),
    Format("WEBP", "webp", re.compile(rb"RIFF....WEBP", re.DOTALL), max_pixels=50_000_000),
    Format("TIFF", "tiff", re.compile(rb"II[*+]\0|MM\0[*+]"), split_tiff),
    Format("GIF", "gif", re.compile(rb"GIF8[79]a")),
    Format("BMP", "bmp", re.compile(rb"BM")),
    Format("AVIF", "avif", re.compile(rb".{4}ftyp(.{4}){0,20}?avi[fs]", re.DOTALL), split_bmff, max_pixels=50_000_000),
    Format("HEIF", "heic", re.compile(rb".{4}ftyp(he[iv]|mi|ms)", re.DOTALL), split_bmff, max_pixels=50_000_000),
)
"""The supported formats. An MPO is a JPEG followed by further images."""


class Decoded(NamedTuple):
    """A decoded file.

    Attributes:
        image: The pixels, in the file's own mode.
        orientation: EXIF orientation, 1 to 8.
        profile: The ICC profile of the pixels, or `None`.
    """

    image: Image.Image
    orientation: int
    profile: bytes | None


def image_format(data: bytes) -> Format | None:
    """The format of a file by its first bytes, or `None`; its name is ignored."""
    return next((row for row in FORMATS if row.magic.match(data)), None)


def decode_image(file: str | os.PathLike[str] | bytes, max_pixels: int = MAX_PIXELS) -> Decoded:
    """Decode the first image of a file.

    Args:
        file: A path, or the content of a file.
        max_pixels: Limit of width times height, checked before decoding.

    Raises:
        ImageError: It is not a regular file, not one of the `FORMATS`, damaged, or larger than `max_pixels` or
            `MAX_BYTES`.
    """
    name, data = _name(file), read_image_file(file)
    try:
        return _decode(data, name, max_pixels)
    except ImageError:
        raise
    except UnidentifiedImageError as error:
        raise ImageError(f"{name} is not a picture, or its header is damaged.") from error
    except Exception as error:  # decoders raise errors of many types
        raise ImageError(f"{name} is truncated or damaged: {error}") from error


def check_pixels(width: int, height: int, max_pixels: int, name: str) -> None:
    """Refuse an image that is too large.

    Raises:
        ImageError: It has more than `max_pixels`.
    """
    if width * height > max_pixels:
        raise ImageError(f"{name} has {width} × {height} pixels; the limit is {max_pixels:,}.", "too-large")


def read_image_file(file: str | os.PathLike[str] | bytes) -> bytes:
    """The content of a file; bytes are returned as they are.

    Raises:
        ImageError: It is not a regular file, has more than `MAX_BYTES`, or cannot be read.
    """
    if isinstance(file, bytes):
        return file
    name = _name(file)
    try:
        with open(file, "rb", opener=_open_without_waiting) as opened:
            status = os.fstat(opened.fileno())
            if not stat.S_ISREG(status.st_mode):
                raise ImageError(f"{name} is a device or a pipe, not a file.")
            if status.st_size > MAX_BYTES:
                raise ImageError(f"{name} has {status.st_size:,} bytes; the limit is {MAX_BYTES:,}.", "too-large")
            return opened.read(status.st_size)  # Python allocates the whole number in advance
    except FileNotFoundError as error:
        raise ImageError(f"There is no file {name}.") from error
    except IsADirectoryError as error:
        raise ImageError(f"{name} is a folder, not a picture.") from error
    except (OSError, ValueError) as error:
        raise ImageError(f"{name} cannot be read: {error}") from error


def _name(file: str | os.PathLike[str] | bytes) -> str:
    return "The file" if isinstance(file, bytes) else f"'{os.fspath(file)}'"


def _open_without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | getattr(os, "O_NONBLOCK", 0))  # opening a named pipe would wait for its writer


def _decode(data: bytes, name: str, max_pixels: int) -> Decoded:
    form = image_format(data)
    if form is None:
        raise ImageError(f"{name} is not a picture in {', '.join(row.name for row in FORMATS)}.")
    parts = form.split(data)
    with _open(form, io.BytesIO(parts.data), name) as image:
        limit = min(max_pixels, form.max_pixels)
        check_pixels(*image.size, limit, name)
        _check_work(form, parts.data, image, name)
        image.load()
    check_pixels(*image.size, limit, name)
    orientation = max(parts.orientation, exif_orientation(image.info.get("exif") or b""))
    return Decoded(image, orientation, parts.profile or image.info.get("icc_profile"))


def _open(form: Format, file: io.BytesIO, name: str) -> Image.Image:
    if form.name != "HEIF":
        return Image.open(file, formats=[form.name])
    try:
        from pillow_heif import HeifImageFile
    except ImportError as error:
        raise ImageError(
            f"{name} is an HEIC photo; to open it: pip install 'idgen-diffusers[heic]'", "needs-heic"
        ) from error
    return HeifImageFile(file)


def _check_work(form: Format, data: bytes, image: Any, name: str) -> None:
    """Refuse small files that take long: many passes of a JPEG, a huge tile of a TIFF, run lengths of a BMP."""
    area = image.width * image.height
    if form.name == "JPEG":
        work = area * data.count(b"\xff\xda")
    elif form.name == "TIFF":
        work = area + 100 * image.tag_v2.get(322, 0) * image.tag_v2.get(323, 0)
    elif form.name == "BMP":
        work = 100 * len(data) if image.tile and image.tile[0][0] == "bmp_rle" else area
    else:
        work = area
    if work > MAX_WORK:
        raise ImageError(f"{name} would take too long to decode; save it again in another program.", "too-large")
