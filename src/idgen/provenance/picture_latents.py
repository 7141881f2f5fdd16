"""What an index of pictures compares: the latents of pictures by a VAE."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from ..faces import Photo, load_photo
from ..tiny.usage import usage_of
from ..vae import encode_images, open_vae
from ..weights_key import network_key

SIDE = 256
"""Width and height of the copies that are encoded, unless the base model draws one size only."""

GRID = 16
"""Latents are averaged to this many rows and columns: edits change details first."""

BATCH_PIXELS = 1 << 20


class LatentReader:
    """Reads the latents of pictures.

    Args:
        base: Base model whose VAE is used: a folder, a hub id, or "tiny".

    Attributes:
        base: The same.
        side: Width and height of the copies that are encoded.
        network: Key of the VAE's weights.

    Raises:
        CheckpointError: The VAE cannot be opened.
    """

    def __init__(self, base: str) -> None:
        self.base, self.side = base, usage_of(base).resolution or SIDE
        self._vae = open_vae(base)
        self.network = network_key(self._vae)

    def __call__(self, pictures: Sequence[Photo]) -> torch.Tensor:
        """Latents of pictures, each resized to a square, (pictures, channels, 16, 16), float32.

        Raises:
            ImageError: A picture cannot be opened.
        """
        count = max(BATCH_PIXELS // self.side**2, 1)
        parts = []
        for start in range(0, len(pictures), count):
            copies = np.stack([self._copy(picture) for picture in pictures[start : start + count]])
            parts.append(F.adaptive_avg_pool2d(encode_images(self._vae, copies), GRID))
        return torch.cat(parts)

    def _copy(self, picture: Photo) -> np.ndarray:
        image = Image.fromarray(load_photo(picture))
        return np.asarray(image.resize((self.side, self.side), Image.Resampling.BICUBIC))
