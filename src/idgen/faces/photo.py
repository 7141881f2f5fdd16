"""Loads photos of any kind as upright RGB arrays."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, TypeAlias

import numpy as np
from PIL import Image, ImageFile

from ..errors import ImageError
from .colours import to_srgb
from .image_file import FORMATS, MAX_PIXELS, Decoded, check_pixels, decode_image

if TYPE_CHECKING:
    import torch

Photo: TypeAlias = "str | os.PathLike[str] | bytes | Image.Image | np.ndarray | torch.Tensor"

_STRIP = 1 << 20  # pixels that are converted at a time, to limit the memory for a large photo


def load_photo(photo: Photo, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Load a photo.

    Files are JPEG, PNG, WebP, TIFF, GIF, BMP, MPO, AVIF or, with the extra `heic`, HEIC, independent of their names.
    EXIF orientation is applied, colours are converted from the embedded profile to sRGB, transparent pixels are
    blended with white, and 16 bits are scaled to 8. Damaged or very large metadata are ignored.

    Args:
        photo: A path; the bytes of a file; a PIL image of any mode; an array of shape (height, width) or
            (height, width, 1 | 3 | 4); or a tensor of shape (1 | 3 | 4, height, width). Arrays and tensors are uint8,
            uint16, or floats in [0, 1].
        max_pixels: Limit of width times height, checked before decoding.

    Returns:
        RGB, uint8, shape (height, width, 3).

    Raises:
        ImageError: The photo is not an image, is damaged, or is larger than `max_pixels`.
    """
    if isinstance(photo, str | os.PathLike | bytes):
        decoded = decode_image(photo, max_pixels)
        return _guarded(lambda: _upright(decoded), "The file" if isinstance(photo, bytes) else f"'{photo}'")
    if isinstance(photo, Image.Image):
        check_pixels(*photo.size, max_pixels, "The PIL image")
        return _guarded(lambda: _upright(_from_pil(photo)), "The PIL image")
    if isinstance(photo, np.ndarray):
        return _guarded(lambda: _from_array(photo, max_pixels), "The array")
    import torch  # here, because it takes seconds, and photos are files as a rule

    if isinstance(photo, torch.Tensor):
        if photo.ndim != 3 or photo.shape[0] not in (1, 3, 4):
            raise ImageError(f"A tensor must have shape (channels, height, width), got {tuple(photo.shape)}.")
        return _guarded(lambda: _from_array(_to_numpy(photo), max_pixels), "The tensor")
    raise ImageError(f"A photo must be a path, bytes, a PIL image, an array or a tensor, got {type(photo).__name__}.")


def _guarded(load: Callable[[], np.ndarray], name: str) -> np.ndarray:
    try:
        return load()
    except ImageError:
        raise
    except Exception as error:  # Pillow raises errors of many types
        raise ImageError(f"{name} is truncated or damaged: {error}") from error


def _from_pil(image: Image.Image) -> Decoded:
    if isinstance(image, ImageFile.ImageFile) and image.tile and image.format not in _OPENED:
        raise ImageError(f"The PIL image is an {image.format} file, which is not supported; convert it first.")
    try:
        orientation = int(image.getexif().get(0x0112, 1))
    except Exception:  # damaged EXIF is ignored
        orientation = 1
    return Decoded(image, orientation, image.info.get("icc_profile"))


_OPENED = {*(row.name for row in FORMATS), "MPO"}


def _upright(photo: Decoded) -> np.ndarray:
    """The pixels as sRGB, (height, width, 3) uint8, blended with white and rotated according to EXIF."""
    image, orientation, profile = photo
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    convert = to_srgb(image, profile)
    for top, strip in _strips(image):
        pixels[top : top + strip.height] = convert(strip)
    if orientation in (5, 6, 7, 8):
        pixels = pixels.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):  # after the axes are swapped, 5 is done, 6 needs a mirror, 8 a flip, 7 both
        pixels = pixels[::-1]
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    return np.ascontiguousarray(pixels)


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    rows = max(1, _STRIP // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _to_numpy(tensor: torch.Tensor) -> np.ndarray:
    tensor = tensor.detach().cpu()
    return (tensor.float() if tensor.is_floating_point() else tensor).movedim(0, -1).numpy()


def _from_array(array: np.ndarray, max_pixels: int) -> np.ndarray:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[-1] not in (1, 3, 4) or 0 in array.shape:
        raise ImageError(f"An array must have shape (height, width, channels), got {array.shape}.")
    check_pixels(array.shape[1], array.shape[0], max_pixels, "The array")
    array = _to_uint8(array)
    if array.shape[-1] == 4:
        return _upright(Decoded(Image.fromarray(array, "RGBA"), 1, None))
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))


def _to_uint8(array: np.ndarray) -> np.ndarray:
    if array.dtype == np.uint8:
        return array
    if array.dtype == np.uint16:
        return (array >> 8).astype(np.uint8)
    if not np.issubdtype(array.dtype, np.floating):
        raise ImageError(f"Pixels must be uint8, uint16 or floats in [0, 1], got {array.dtype}.")
    if not np.isfinite(array).all() or array.min() < 0 or array.max() > 1:
        raise ImageError("Float pixels must be finite and in [0, 1].")
    return (array * 255).round().astype(np.uint8)
