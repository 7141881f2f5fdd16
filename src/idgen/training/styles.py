"""Folders of pictures → the styles that losses read."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps

from ..errors import DataError
from ..faces.photo import load_photo
from ..losses.style import Styles, fit_styles
from ..vae import encode_images
from .base import BaseModel
from .faces import SUFFIXES

BATCH = 8


def open_styles(folders: Sequence[str], base: BaseModel, side: int) -> Styles:
    """Fit the subspace of each folder's pictures, which are cut to squares of the training's size.

    Args:
        folders: A folder for each style, two or more pictures each.
        base: Its VAE encodes the pictures.
        side: Side of the squares in pixels.

    Raises:
        DataError: A folder has fewer than two pictures.
    """
    return fit_styles([_latents(_pictures(folder, side), base) for folder in folders])


def _pictures(folder: str, side: int) -> list[np.ndarray]:
    files = sorted(path for path in Path(folder).glob("*") if path.suffix.lower() in SUFFIXES)
    if len(files) < 2:
        raise DataError(f"A style needs at least 2 pictures, and '{folder}' has {len(files)}.")
    return [np.asarray(ImageOps.fit(Image.fromarray(load_photo(path)), (side, side))) for path in files]


def _latents(pictures: Sequence[np.ndarray], base: BaseModel) -> torch.Tensor:
    batches = [np.stack(pictures[i : i + BATCH]) for i in range(0, len(pictures), BATCH)]
    return torch.cat([encode_images(base.pipeline.vae, batch).float() for batch in batches])
