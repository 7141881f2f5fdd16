"""An invisible mark in a picture's pixels that says: drawn by idgen.

RivaGAN (Zhang et al., arXiv 1909.01285), as the library `invisible-watermark` ships it. Its network reads pictures of
one size well. So the mark is made for a small copy of the picture, and only the change is brought to the picture's own
size (as in TrustMark, arXiv 2311.18297): then it stands at every size, and resizing does not hide it.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import numpy as np
from PIL import Image

from ..errors import MissingDependencyError

SIDE = 256
"""Width and height of the copy that is marked."""

CODE = np.unpackbits(np.frombuffer(hashlib.sha256(b"idgen").digest()[:4], np.uint8))
"""(32,): the bits of every mark; it names the program, and nobody."""

FOUND_AT = 28
"""So many bits must agree. Fair coins would do that once in 100,000 pictures; docs/safety.md says what pictures do."""


@dataclass(frozen=True)
class Watermark:
    """What was read from a picture.

    Attributes:
        agreeing: How many bits are those of the mark.
    """

    agreeing: int

    @property
    def found(self) -> bool:
        """Whether the picture is taken for marked."""
        return self.agreeing >= FOUND_AT


def add_watermark(image: Image.Image) -> Image.Image:
    """The picture as RGB with the mark in it; pixels change by about 2 of 255.

    Raises:
        MissingDependencyError: `idgen-diffusers[provenance]` is not installed.
    """
    picture = image.convert("RGB")
    encoder = _library().WatermarkEncoder()
    encoder.set_watermark("bits", CODE.tolist())
    copy = _to_side(picture)
    change = _bgr(encoder.encode(_bgr(copy), "rivaGan")).astype(np.float32) - copy
    marked = np.asarray(picture) + _resize(change, picture.size)
    return Image.fromarray(marked.round().clip(0, 255).astype(np.uint8))


def read_watermark(image: Image.Image) -> Watermark:
    """Look for the mark; raises as `add_watermark`."""
    bits = _library().WatermarkDecoder("bits", len(CODE)).decode(_bgr(_to_side(image.convert("RGB"))), "rivaGan")
    return Watermark(int((np.asarray(bits) == CODE).sum()))


def require_watermark() -> None:
    """Raise MissingDependencyError now instead of after the picture has been drawn."""
    _library()


def _library() -> Any:
    try:
        import imwatermark
        import onnxruntime  # noqa: F401  # which the library opens its network with and does not ask for
    except ImportError as error:
        raise MissingDependencyError(
            f"Invisible watermarks need pip install 'idgen-diffusers[provenance]' ({error}); "
            "--no-watermark does without."
        ) from error
    imwatermark.WatermarkEncoder.loadModel()
    return imwatermark


def _to_side(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture.resize((SIDE, SIDE), Image.Resampling.BICUBIC))


def _bgr(pixels: np.ndarray) -> np.ndarray:
    """The library's order of channels, and back."""
    return np.ascontiguousarray(pixels[..., ::-1])


def _resize(change: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    channels = [Image.fromarray(change[..., i]).resize(size, Image.Resampling.BICUBIC) for i in range(3)]
    return np.stack([np.asarray(channel) for channel in channels], axis=-1)
