"""Whatever users call a photo → an upright RGB array."""

from __future__ import annotations

import os
from typing import TypeAlias

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError

from ..errors import ImageError

Photo: TypeAlias = "str | os.PathLike[str] | Image.Image | np.ndarray | torch.Tensor"

MAX_PIXELS = 89_478_485
"""Pillow's own limit: a quarter gigabyte once opened. Larger files are taken for decompression bombs."""


def load_photo(photo: Photo) -> np.ndarray:
    """Open a photo as users have them.

    Args:
        photo: A path; a PIL image of any mode (EXIF orientation is applied, transparency is laid over white,
            16-bit is scaled to 8); an array of shape (height, width), (height, width, 1 | 3 | 4); or a tensor of
            shape (1 | 3 | 4, height, width). Arrays and tensors are uint8, uint16, or floats in [0, 1].

    Returns:
        RGB, uint8, shape (height, width, 3).

    Raises:
        ImageError: It is not a picture, is truncated, or has more than `MAX_PIXELS` pixels.
    """
    if isinstance(photo, str | os.PathLike):
        return _from_path(photo)
    if isinstance(photo, Image.Image):
        return _from_pil(photo, "the PIL image")
    if isinstance(photo, torch.Tensor):
        if photo.ndim != 3 or photo.shape[0] not in (1, 3, 4):
            raise ImageError(f"A tensor must have the shape (channels, height, width), not {tuple(photo.shape)}.")
        return _from_array(photo.detach().cpu().movedim(0, -1).numpy())
    if isinstance(photo, np.ndarray):
        return _from_array(photo)
    raise ImageError(f"A photo is a path, a PIL image, an array or a tensor, not {type(photo).__name__}.")


def _from_path(path: str | os.PathLike[str]) -> np.ndarray:
    try:
        with Image.open(path) as image:
            return _from_pil(image, os.fspath(path))
    except FileNotFoundError as error:
        raise ImageError(f"There is no file '{os.fspath(path)}'.") from error
    except (UnidentifiedImageError, IsADirectoryError) as error:
        raise ImageError(f"'{os.fspath(path)}' is not a picture.") from error


def _from_pil(image: Image.Image, name: str) -> np.ndarray:
    if image.width * image.height > MAX_PIXELS:
        raise ImageError(
            f"{name} has {image.width} × {image.height} pixels, more than {MAX_PIXELS:,}; make it smaller first."
        )
    try:
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith(("I", "F")):
            return _from_array(_wide_to_uint8(np.asarray(image)))
        if "A" in image.getbands() or "transparency" in image.info:
            image = image.convert("RGBA")
            white = Image.new("RGBA", image.size, "white")
            image = Image.alpha_composite(white, image)
        return np.asarray(image.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ImageError(f"{name} is truncated or damaged: {error}") from error


def _wide_to_uint8(values: np.ndarray) -> np.ndarray:
    """16-bit, 32-bit and float grey pictures: Pillow's own conversion clips them at 255 instead of scaling."""
    values = values.astype(np.float64)
    top = 1.0 if values.max(initial=0) <= 1 else 255.0 if values.max() <= 255 else 65535.0
    return (values.clip(0, top) / top * 255).round().astype(np.uint8)


def _from_array(array: np.ndarray) -> np.ndarray:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or 0 in array.shape:
        raise ImageError(f"An array must have the shape (height, width, channels), not {array.shape}.")
    if array.shape[0] * array.shape[1] > MAX_PIXELS:
        raise ImageError(f"The array has {array.shape[1]} × {array.shape[0]} pixels, more than {MAX_PIXELS:,}.")
    array = _to_uint8(array)
    if array.shape[-1] == 4:
        return _from_pil(Image.fromarray(array, "RGBA"), "the array")
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def _to_uint8(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return (array >> 8).astype(np.uint8)
    if not np.issubdtype(array.dtype, np.floating):
        raise ImageError(f"Pixels must be uint8, uint16 or floats in [0, 1], not {array.dtype}.")
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise ImageError("Float pixels must be finite and lie in [0, 1].")
    return (array * 255).round().astype(np.uint8)
