"""Files that visitors send: whether they may, and what they hold."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from ..errors import DemoError, ImageError
from ..faces import load_photo

MAX_FILE_SIZE = "20mb"
MAX_PHOTOS = 8
MAX_PIXELS = 40_000_000
"""What a phone takes; checked before the pixels are opened."""

WORKING_SIDE = 1600
"""Larger photos are reduced: finding faces takes seconds otherwise, and encoders read crops of 150 px at most."""


def open_photo(path: str) -> np.ndarray:
    """(height, width, 3) RGB.

    Raises:
        ImageError: It is not a picture, is damaged, or has too many pixels.
    """
    try:
        photo = load_photo(path, MAX_PIXELS)
    except ImageError as error:  # where files lie on the server is nobody's business
        raise ImageError(str(error).replace(path, Path(path).name), error.reason) from error
    if max(photo.shape[:2]) <= WORKING_SIDE:
        return photo
    image = Image.fromarray(photo)
    image.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(image)


def gallery_paths(photos: Sequence[tuple[str, str | None]] | None) -> list[str]:
    """What an input gallery holds → paths.

    Raises:
        DemoError: There is none, or there are too many.
    """
    if not photos:
        raise DemoError("Upload a photo first.")
    if len(photos) > MAX_PHOTOS:
        raise DemoError(f"{len(photos)} photos are too many: {MAX_PHOTOS} of one person are plenty.")
    return [path for path, _ in photos]
