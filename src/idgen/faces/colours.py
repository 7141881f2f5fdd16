"""Converts pixels of any Pillow mode, with or without a colour profile, to sRGB."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageCms

_SAME = 2
"""A profile that differs from sRGB by at most this many levels is treated as sRGB, so that pixels do not change. Most
photos have one of the many versions of the sRGB profile."""


def to_srgb(image: Image.Image, profile: bytes | None) -> Callable[[Image.Image], np.ndarray]:
    """A function that converts strips of an image to (height, width, 3) uint8.

    Args:
        image: An image of any mode. Transparent pixels are blended with white.
        profile: ICC profile of its colours. A damaged profile, or one for another kind of image, is ignored.
    """
    if image.mode.startswith(("I", "F")):
        scale = _range(image)
        return lambda strip: np.repeat(_grey(strip, scale)[..., None], 3, 2)
    base = {"1": "L", "L": "L", "LA": "L", "La": "L", "CMYK": "CMYK", "LAB": "LAB"}.get(image.mode, "RGB")
    transform = _transform(profile, base)
    transparent = "A" in image.getbands() or "a" in image.getbands() or "transparency" in image.info

    def convert(strip: Image.Image) -> np.ndarray:
        strip = strip.convert("RGBA") if transparent else strip
        colours = strip if strip.mode == base else strip.convert(base)
        colours = ImageCms.applyTransform(colours, transform) if transform else colours.convert("RGB")
        assert colours is not None  # it is `None` only for a conversion in place
        if transparent:
            white = Image.new("RGB", strip.size, "white")
            white.paste(colours, mask=strip.getchannel("A"))
            colours = white
        return np.asarray(colours)

    return convert


def _transform(profile: bytes | None, base: str) -> ImageCms.ImageCmsTransform | None:
    """The conversion to sRGB; `None` if the pixels are already sRGB or cannot be converted."""
    srgb = ImageCms.createProfile("sRGB")
    try:
        if base == "LAB":
            return ImageCms.buildTransform(ImageCms.createProfile("LAB"), srgb, "LAB", "RGB")
        if not profile:
            return None
        transform = ImageCms.buildTransform(ImageCms.ImageCmsProfile(io.BytesIO(profile)), srgb, base, "RGB")
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    if base == "CMYK":
        return transform
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    sample = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3)
    probe = Image.fromarray(sample if base == "RGB" else sample[..., 0])
    converted = ImageCms.applyTransform(probe, transform)
    change = np.abs(np.asarray(converted).astype(int) - np.asarray(probe.convert("RGB")))
    return transform if change.max() > _SAME else None


def _range(image: Image.Image) -> float:
    """The white level of a greyscale image of 16 or 32 bits or floats; Pillow's own conversion clips them at 255."""
    highest = np.nan_to_num(np.asarray(image.getextrema(), np.float64), posinf=0.0).max()
    return 1.0 if highest <= 1 else 255.0 if highest <= 255 else 65535.0


def _grey(strip: Image.Image, white: float) -> np.ndarray:
    values = np.nan_to_num(np.asarray(strip).astype(np.float64))
    return (values.clip(0, white) / white * 255).round().astype(np.uint8)
