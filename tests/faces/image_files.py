"""Image files of every format that is opened, and ways to damage them."""

from __future__ import annotations

import io
import random
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
from PIL import Image, ImageCms
from PIL.PngImagePlugin import PngInfo


def picture(width: int = 60, height: int = 40) -> Image.Image:
    """Smooth, with a colour of its own in each corner."""
    y, x = np.mgrid[0:height, 0:width]
    return Image.fromarray(
        np.stack([240 * x // width, 240 * y // height, 255 - 240 * x // width], -1).astype(np.uint8)
    )


def encode(image: Image.Image, form: str, **options: Any) -> bytes:
    if form == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def exif(orientation: int) -> bytes:
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x010F] = "maker"
    return block.tobytes()


@cache
def files() -> dict[str, bytes]:
    """One file of each kind that decoders treat in another way."""
    rgb, second = picture(), picture().rotate(180)
    srgb = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    text = PngInfo()
    text.add_text("prompt", "a face")
    text.add_itxt("workflow", "{}" * 200, zip=True)
    marked: dict[str, Any] = {"exif": exif(6), "icc_profile": srgb}
    wide = Image.fromarray(np.asarray(rgb.convert("L")).astype(np.uint16) * 257)
    return {
        "jpeg": encode(rgb, "JPEG", **marked),
        "progressive": encode(rgb, "JPEG", progressive=True),
        "cmyk.jpeg": encode(rgb.convert("CMYK"), "JPEG"),
        "mpo": encode(rgb, "MPO", save_all=True, append_images=[second]),
        "png": encode(rgb, "PNG", pnginfo=text, **marked),
        "palette.png": encode(rgb.quantize(16), "PNG", transparency=3),
        "wide.png": encode(wide, "PNG"),
        "apng": encode(rgb, "PNG", save_all=True, append_images=[second]),
        "webp": encode(rgb, "WEBP", **marked),
        "lossless.webp": encode(rgb.convert("RGBA"), "WEBP", lossless=True),
        "animated.webp": encode(rgb, "WEBP", save_all=True, append_images=[second]),
        "tiff": encode(rgb, "TIFF", **marked),
        "lzw.tiff": encode(rgb, "TIFF", compression="tiff_lzw"),
        "jpeg.tiff": encode(rgb, "TIFF", compression="jpeg"),
        "deflate.tiff": encode(wide, "TIFF", compression="tiff_adobe_deflate"),
        "big.tiff": encode(rgb, "TIFF", big_tiff=True, exif=exif(3)),
        "lab.tiff": encode(
            ImageCms.profileToProfile(  # pyright: ignore[reportArgumentType]
                rgb, ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), outputMode="LAB"
            ),
            "TIFF",
        ),
        "gif": encode(rgb, "GIF", save_all=True, append_images=[second]),
        "bmp": encode(rgb, "BMP"),
        "grey.bmp": encode(rgb.convert("L"), "BMP"),
        "avif": encode(rgb, "AVIF", **marked),
        "heic": encode(rgb, "HEIF", **marked),
    }


EXTREME = (b"\0\0", b"\xff\xff", b"\x7f\xff", b"\xff\x7f", b"\0\0\0\0", b"\xff" * 4, b"\x7f\xff\xff\xff", b"\0\0\1\0")


def mutate(data: bytes, draw: random.Random) -> bytes:
    """A damaged file: changed bytes, extreme numbers, parts that are missing, doubled or of another file."""
    damaged = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 5, 20))):
        reach = draw.choice((32, 200, len(damaged))) if len(damaged) > 200 else len(damaged)
        place = draw.randrange(max(reach, 1))
        length = draw.choice((1, 4, 12, 64, 500))
        match draw.randrange(8):
            case 0 | 1 | 2:
                damaged[place : place + 1] = bytes([draw.randrange(256)])
            case 3 | 4:
                number = draw.choice(EXTREME)
                damaged[place : place + len(number)] = number
            case 5:
                del damaged[place : place + length]
            case 6:
                damaged[place:place] = damaged[place : place + length] * draw.choice((1, 1, 50))
            case 7:
                other = draw.choice([*files().values()])
                start = draw.randrange(len(other))
                damaged[place : place + length] = other[start : start + length]
    return bytes(damaged[: draw.randrange(len(damaged) + 1)] if draw.random() < 0.1 else damaged)


def png_chunk(kind: bytes, body: bytes, right: bool = True) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body) ^ (not right))


def tiff(tags: list[tuple[int, int, int, int]], rest: bytes = b"") -> bytes:
    """A TIFF with these tags (number, type, count, value); `rest` begins at byte 14 + 12 × tags."""
    entries = b"".join(struct.pack("<HHII", *tag) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + rest


def matrix_profile(primaries: np.ndarray, gamma: float) -> bytes:
    """An ICC profile of version 2 (ICC.1:2001-04): the columns are the XYZ of red, green and blue under D50."""

    def fixed(*numbers: float) -> bytes:
        return b"".join(struct.pack(">i", round(number * 65536)) for number in numbers)

    curve = b"curv" + bytes(4) + struct.pack(">IH", 1, round(gamma * 256)) + bytes(2)
    text = b"desc" + bytes(4) + struct.pack(">I", 5) + b"test\0" + bytes(4 + 4 + 2 + 1 + 67 + 2)
    body = {b"desc": text, b"cprt": b"text" + bytes(4) + b"none\0" + bytes(3)}
    body |= {b"wtpt": b"XYZ " + bytes(4) + fixed(0.9642, 1.0, 0.8249)}
    for i, colour in enumerate(b"rgb"):
        body[bytes([colour]) + b"XYZ"] = b"XYZ " + bytes(4) + fixed(*primaries[:, i])
        body[bytes([colour]) + b"TRC"] = curve
    table, content, place = struct.pack(">I", len(body)), b"", 128 + 4 + 12 * len(body)
    for name, value in body.items():
        table += name + struct.pack(">II", place + len(content), len(value))
        content += value + bytes(-len(value) % 4)
    size = place + len(content)
    header = struct.pack(">I4sI4s4s4s", size, bytes(4), 0x02400000, b"mntr", b"RGB ", b"XYZ ") + bytes(12) + b"acsp"
    return (header.ljust(68, b"\0") + fixed(0.9642, 1.0, 0.8249)).ljust(128, b"\0") + table + content
