"""An invisible watermark in the pixels of pictures that idgen generates.

RivaGAN (Zhang et al., arXiv 1909.01285), as the library `invisible-watermark` ships it. Its network works best at one
size. The watermark is therefore made for a small copy, and only the change is resized to the picture (as in TrustMark,
arXiv 2311.18297), which makes it readable at every size.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..errors import MissingDependencyError
from .recipient_code import decode_recipient, encode_recipient
from .tracing_key import TracingKey

SIDE = 256
"""Width and height of the copy that gets the watermark."""

CODE = np.unpackbits(np.frombuffer(hashlib.sha256(b"idgen").digest()[:4], np.uint8))
"""(32,) bits of a watermark without a recipient, the same in every picture: they name the program, not a person."""

FOUND_AT = 28
"""Bits that must agree. Random bits do so once in 100,000 pictures; docs/safety.md has measurements on pictures."""


@dataclass(frozen=True, eq=False)
class Watermark:
    """What was read from a picture, which may have no watermark.

    Attributes:
        bits: (32,), uint8.
    """

    bits: np.ndarray

    @property
    def agreeing(self) -> int:
        """Number of bits that agree with those of a watermark without a recipient."""
        return int((self.bits == CODE).sum())

    @property
    def found(self) -> bool:
        """Whether the picture has a watermark without a recipient."""
        return self.agreeing >= FOUND_AT

    def recipient(self, key: TracingKey) -> tuple[int, int] | None:
        """The recipient of a watermark that was made with this key, and the number of bits that agree, else None.

        A key reads a recipient from a picture that was not marked with it with probability 3.27e-4; see
        `recipient_code.FALSE_POSITIVE_RATE`.
        """
        return decode_recipient(key, self.bits)


def add_watermark(image: Image.Image, key: TracingKey | None = None, recipient: int = 0) -> Image.Image:
    """The picture as RGB with the watermark; pixels change by about 2 of 255.

    Args:
        image: Picture of any size.
        key: If given, the watermark holds the recipient, readable with this key only.
        recipient: A number from 0 to 255.

    Raises:
        MissingDependencyError: `idgen-diffusers[provenance]` is not installed.
        ProvenanceError: The recipient is out of range.
    """
    bits = CODE if key is None else encode_recipient(key, recipient)
    picture = image.convert("RGB")
    encoder = _library().WatermarkEncoder()
    encoder.set_watermark("bits", bits.tolist())
    copy = _to_side(picture)
    change = _bgr(encoder.encode(_bgr(copy), "rivaGan")).astype(np.float32) - copy
    marked = np.asarray(picture) + _resize(change, picture.size)
    return Image.fromarray(marked.round().clip(0, 255).astype(np.uint8))


def read_watermark(image: Image.Image) -> Watermark:
    """Read the watermark; raises like `add_watermark`."""
    bits = _library().WatermarkDecoder("bits", len(CODE)).decode(_bgr(_to_side(image.convert("RGB"))), "rivaGan")
    return Watermark(np.asarray(bits, np.uint8))


def require_watermark() -> None:
    """Raise MissingDependencyError if the library is missing, before a picture is drawn."""
    _library()


def _library() -> Any:
    try:
        import imwatermark
        import onnxruntime  # noqa: F401  # the library needs it and does not declare it
    except ImportError as error:
        raise MissingDependencyError(
            f"Invisible watermarks need pip install 'idgen-diffusers[provenance]' ({error}); "
            "--no-watermark disables them."
        ) from error
    imwatermark.WatermarkEncoder.loadModel()
    return imwatermark


def _to_side(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _bgr(pixels: np.ndarray) -> np.ndarray:
    """RGB to BGR, the library's order of channels, or back."""
    return np.ascontiguousarray(pixels[..., ::-1])


def _resize(change: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    channels = [Image.fromarray(change[..., i]).resize(size, Image.Resampling.BICUBIC) for i in range(3)]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)
