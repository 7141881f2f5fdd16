"""Image features of a whole photo, by an image encoder that is a part of the adapter (PhotoMaker)."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image

from ..errors import NoFaceError
from .clip import normalise_for_clip


class WholePhotoFeatures:
    """Features of the square in the middle of a photo, resized as by CLIP's own preprocessing; an `ImageEncoder`.

    Faces are neither aligned nor cropped, as in PhotoMaker. Other people in the photo are read too.

    Args:
        encode_images: (batch, 3, size, size), normalised as for CLIP → (batch, tokens, dim).
        name: Name of the image encoder.
        dim: Width of its features.
        size: Side of its image in pixels.
    """

    def __init__(self, encode_images: Callable[[torch.Tensor], torch.Tensor], name: str, dim: int, size: int) -> None:
        self.name, self.dim, self.size = name, dim, size
        self._encode_images = encode_images

    def encode(self, photo: np.ndarray, landmarks: np.ndarray) -> torch.Tensor:
        """See `ImageEncoder`.

        Raises:
            NoFaceError: The face is outside of the square.
        """
        _check_inside(landmarks, *photo.shape[:2])
        pixels = normalise_for_clip(square_in_the_middle(photo, self.size)[None])
        return self._encode_images(pixels)[0].float().cpu()

    def unconditional(self) -> None:
        """See `ImageEncoder`: the negative half of guidance is ordinary text."""


def square_in_the_middle(photo: np.ndarray, size: int) -> np.ndarray:
    """Resize the shorter side of a photo to `size` (bicubic), and cut off the ends of the longer one.

    Args:
        photo: (height, width, 3) uint8.
        size: Side of the square.

    Returns:
        (size, size, 3) uint8.
    """
    height, width = photo.shape[:2]
    if height <= width:
        width, height = int(size * width / height), size
    else:
        width, height = size, int(size * height / width)
    left, top = (width - size) // 2, (height - size) // 2
    resized = Image.fromarray(photo).resize((width, height), Image.Resampling.BICUBIC)
    return np.array(resized.crop((left, top, left + size, top + size)))


def _check_inside(landmarks: np.ndarray, height: int, width: int) -> None:
    """Refuse a photo whose face the square cuts off, and warn of one whose face it cuts."""
    margin = np.array([max(0, width - height), max(0, height - width)]) / 2
    inside = ((landmarks >= margin) & (landmarks <= np.array([width, height]) - margin)).all(-1)
    what = "of the square in the middle of the photo, which this adapter's image encoder reads. Crop the photo first."
    if not inside.any():
        raise NoFaceError(f"The face is outside {what}")
    if not inside.all():
        warnings.warn(f"A part of the face is outside {what}", stacklevel=5)
