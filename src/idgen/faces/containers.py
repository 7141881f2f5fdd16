"""Splits image files into the pixels and the metadata that are needed to show them.

Decoders never read other metadata, so damaged or very large metadata do not make an image unreadable.
"""

from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from ..errors import ImageError

MAX_PARTS = 100_000
"""Limit of the chunks of a PNG or segments of a JPEG; an image of 256 MB in chunks of 8 KB has a third of that."""

MAX_PROFILE = 1 << 24
"""Limit of the bytes of an uncompressed colour profile."""

_ORIENTATION, _PROFILE = 274, 34675
_OWN_TAGS = range(600)
"""The tags of TIFF 6.0, which decoding needs; EXIF, XMP and private tags have higher numbers."""

_TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}


class Parts(NamedTuple):
    """A file without its metadata, its orientation and its colour profile.

    Attributes:
        data: The file for the decoder.
        orientation: EXIF orientation, 1 to 8.
        profile: The ICC profile, or `None`.
    """

    data: bytes
    orientation: int = 1
    profile: bytes | None = None


def split_png(data: bytes) -> Parts:
    """Keep the critical chunks and the transparency (PNG 1.2, 4.1). Damaged ancillary chunks are ignored."""
    kept, orientation, profile = [data[:8]], 1, None
    for kind, body, chunk in png_chunks(data):
        if kind[0] & 0x20 == 0 or kind == b"tRNS":
            kept.append(chunk)
        elif kind == b"eXIf":
            orientation = exif_orientation(body)
        elif kind == b"zTXt" and body.startswith(_RAW_EXIF):
            orientation = _raw_exif_orientation(_inflate(body[len(_RAW_EXIF) + 1 :]))
        elif kind == b"tEXt" and body.startswith(_RAW_EXIF):
            orientation = _raw_exif_orientation(body[len(_RAW_EXIF) :])
        elif kind == b"iCCP":
            profile = _inflate(body.partition(b"\0")[2][1:])
    return Parts(b"".join(kept), orientation, profile)


def png_chunks(data: bytes) -> Iterator[tuple[bytes, bytes, bytes]]:
    """Type, content and all bytes of each chunk of a PNG; ancillary chunks with a wrong checksum are skipped.

    Raises:
        ImageError: The file has more than `MAX_PARTS` chunks.
    """
    position = 8
    for _ in range(MAX_PARTS):
        if position + 8 > len(data):
            return
        length, kind = struct.unpack_from(">I4s", data, position)
        chunk = data[position : position + 12 + length]
        position += len(chunk)
        critical = kind[0] & 0x20 == 0
        if critical or (len(chunk) == 12 + length and zlib.crc32(chunk[4:-4]) == int.from_bytes(chunk[-4:])):
            yield kind, chunk[8:-4], chunk
        if kind == b"IEND":
            return
    raise ImageError(f"The PNG has more than {MAX_PARTS:,} chunks.")


def split_jpeg(data: bytes) -> Parts:
    """Drop the application segments that decoding does not need. An MPO becomes its first JPEG."""
    kept, orientation, profile, position = [data[:2]], 1, [], 2
    for _ in range(MAX_PARTS):
        marker = data[position : position + 2]
        if marker == b"\xff\xff":  # padding
            position += 1
            continue
        length = int.from_bytes(data[position + 2 : position + 4])
        if (
            marker[:1] != b"\xff" or marker == b"\xff\xda" or length < 2
        ):  # the samples, or damage, which the decoder reports
            icc = b"".join(part[2:] for part in sorted(profile))
            return Parts(b"".join([*kept, data[position:]]), orientation, icc)
        segment = data[position : position + 2 + length]
        body = segment[4:]
        if marker == b"\xff\xe1" and body.startswith(b"Exif\0\0"):
            orientation = exif_orientation(body)
        elif marker == b"\xff\xe2" and body.startswith(b"ICC_PROFILE\0"):
            profile.append(body[12:])
        elif not (0xE1 <= marker[1] <= 0xED or marker in (b"\xff\xef", b"\xff\xfe")):
            kept.append(segment)
        position += 2 + length
    raise ImageError(f"The JPEG has more than {MAX_PARTS:,} segments.")


def split_tiff(data: bytes) -> Parts:
    """Keep the tags of TIFF 6.0 in the first directory, and drop all others.

    Raises:
        ImageError: The values of the tags take more bytes than the file has.
    """
    directory = _Directory(data)
    kept, orientation, profile, values = [], 1, None, 0
    for tag, entry, value in directory:
        if tag == _ORIENTATION:
            orientation = directory.number(value)
        elif tag in _OWN_TAGS:
            kept.append(entry)
            values += len(value)
        elif tag == _PROFILE:
            profile = bytes(value)
    if values > len(data):
        raise ImageError("The tags of the TIFF take more bytes than the file has.")
    return Parts(directory.only(kept), _known(orientation), profile)


def split_bmff(data: bytes) -> Parts:
    """Hide the EXIF item of AVIF and HEIF, whose containers have an orientation of their own."""
    return Parts(re.sub(rb"(infe.{8})Exif", rb"\1none", data, flags=re.DOTALL))


def exif_orientation(exif: bytes) -> int:
    """The orientation in an EXIF block, 1 to 8; 1 if there is none."""
    try:
        directory = _Directory(exif.removeprefix(b"Exif\0\0"))
        return _known(next((directory.number(value) for tag, _, value in directory if tag == _ORIENTATION), 1))
    except (struct.error, ImageError):
        return 1


class _Directory:
    """The first directory of a TIFF or BigTIFF file; iterates over tag, entry and value.

    Raises:
        ImageError: The data are not a TIFF directory.
        struct.error: The data are truncated.
    """

    def __init__(self, data: bytes) -> None:
        self.data = memoryview(data)
        self.order = {b"II": "<", b"MM": ">"}.get(data[:2], "")
        if not self.order:
            raise ImageError("This is not a TIFF directory.")
        big = self._unpack("H", 2)[0] == 43
        self.word, self.count, self.inline = ("Q", "Q", 8) if big else ("I", "H", 4)
        self.start = self._unpack(self.word, 8 if big else 4)[0]
        self.size = self._unpack(self.count, self.start)[0]
        if self.size > 0xFFFF:
            raise ImageError(f"The TIFF has {self.size:,} tags, more than {0xFFFF:,}.")

    def __iter__(self) -> Iterator[tuple[int, bytes, memoryview]]:
        step, first = 4 + 2 * self.inline, self.start + struct.calcsize(self.order + self.count)
        for place in range(first, first + self.size * step, step):
            tag, kind, count = self._unpack(f"HH{self.word}", place)
            length, value = count * _TYPE_SIZES.get(kind, 0), place + 4 + self.inline
            if length > self.inline:
                (value,) = self._unpack(self.word, value)
            yield tag, bytes(self.data[place : place + step]), self.data[value : value + length]

    def number(self, value: memoryview) -> int:
        """The first of a tag's integers, of type SHORT; 1 if there is none."""
        return int(struct.unpack_from(f"{self.order}H", value)[0]) if len(value) >= 2 else 1

    def only(self, entries: list[bytes]) -> bytes:
        """The file with these entries only, and no other directory."""
        head = struct.pack(self.order + self.count, len(entries))
        tail = struct.pack(self.order + self.word, 0)
        directory = b"".join([head, *entries, tail])
        return b"".join([self.data[: self.start], directory, self.data[self.start + len(directory) :]])

    def _unpack(self, form: str, place: int) -> tuple[int, ...]:
        return struct.unpack_from(self.order + form, self.data, place)


_RAW_EXIF = b"Raw profile type exif\0"
"""EXIF as ImageMagick wrote it before PNG had a chunk for it: a name, the number of bytes, and the bytes in hex."""


def _raw_exif_orientation(text: bytes | None) -> int:
    try:
        return exif_orientation(bytes.fromhex("".join((text or b"").decode("ascii").split()[2:])))
    except ValueError:
        return 1


def _inflate(data: bytes) -> bytes | None:
    unpacker = zlib.decompressobj()
    try:
        unpacked = unpacker.decompress(data, MAX_PROFILE)
    except zlib.error:
        return None
    return None if unpacker.unconsumed_tail else unpacked


def _known(orientation: int) -> int:
    return orientation if 1 <= orientation <= 8 else 1
