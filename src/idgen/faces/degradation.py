"""Damage of photos: made at random for training, and measured in a photo."""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Self

import numpy as np
from PIL import Image, ImageFilter

SHARP = 0.35
"""Share of the contrast of an undamaged face of 64 px that lies in details of about a pixel."""


@dataclass(frozen=True, kw_only=True)
class Degradation:
    """The damage of a photo, applied in this order (the first-order model of Real-ESRGAN, arXiv 2107.10833).

    Attributes:
        blur: Standard deviation of a Gaussian blur, in pixels.
        shrink: Factor by which the photo is reduced.
        noise: Standard deviation of Gaussian noise, of 255.
        jpeg: Quality of JPEG compression; 100 for none.
    """

    blur: float = 0.0
    shrink: float = 1.0
    noise: float = 0.0
    jpeg: int = 100

    @classmethod
    def draw(cls, random: np.random.Generator) -> Self:
        """Random damage, from almost none to a face of an eighth of its size."""
        return cls(
            blur=float(random.uniform(0, 1.5)),
            shrink=float(2 ** random.uniform(0, 3)),
            noise=float(random.uniform(0, 15)) * float(random.random() < 0.5),
            jpeg=int(random.integers(30, 96)),
        )

    def __call__(self, photo: np.ndarray, seed: int = 0) -> np.ndarray:
        """Damage a photo and enlarge it again; (height, width, 3) uint8 → the same shape."""
        image = Image.fromarray(photo).filter(ImageFilter.GaussianBlur(self.blur))
        width, height = (max(1, round(side / self.shrink)) for side in image.size)
        pixels = np.asarray(image.resize((width, height), Image.Resampling.BOX), np.float64)
        pixels = pixels + np.random.default_rng(seed).normal(0, self.noise, pixels.shape)
        damaged = Image.fromarray(pixels.round().clip(0, 255).astype(np.uint8))
        if self.jpeg < 100:
            file = io.BytesIO()
            damaged.save(file, format="JPEG", quality=self.jpeg)
            damaged = Image.open(file).convert("RGB")
        return np.asarray(damaged.resize(image.size, Image.Resampling.BICUBIC))


def measure_degradation(crop: np.ndarray, zoom: float = 1.0) -> float:
    """Estimate the damage of an aligned face: 0 for a sharp photo, towards 1 for one in which little can be seen.

    `1 − (size · sharpness · cleanness)^⅓`. Size is 1 / zoom; sharpness the contrast of details of about a pixel,
    beside the contrast of the whole and an undamaged face; cleanness `1 / (1 + (σ / 10)²)` with the noise's
    deviation σ, by Immerkær's mask (1996). Each is at most 1.

    Args:
        crop: (side, side, 3) uint8, at the size of the model's picture.
        zoom: How many times the face was enlarged for the crop.
    """
    grey = crop.astype(np.float64).mean(-1)
    inner = grey[1:-1, 1:-1]
    cross = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:]
    corners = grey[:-2, :-2] + grey[:-2, 2:] + grey[2:, :-2] + grey[2:, 2:]
    noise = float(np.median(np.abs(corners - 2 * cross + 4 * inner))) / (0.6745 * 6)
    power = float((inner - cross / 4).var()) - 1.25 * noise**2
    sharpness = np.sqrt(max(power, 0.0) / max(float(grey.var()), 1e-6)) / SHARP
    quality = min(1.0, 1 / max(zoom, 1e-6)) * min(1.0, float(sharpness)) / (1 + (noise / 10) ** 2)
    return 1 - quality ** (1 / 3)
