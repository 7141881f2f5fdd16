"""How well the autoencoder reconstructs pictures of people who are held out."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from idgen.data.clustering import unit
from idgen.faces import FaceEncoder

from .autoencoder import to_tensor

BATCH = 32


def reconstruction(
    net: Any, crops: dict[str, np.ndarray], points: np.ndarray, encoder: FaceEncoder, count: int
) -> dict[str, float]:
    """Measure on one photo of each of `count` people, and on as many styled pictures.

    Args:
        net: An `AutoencoderTiny`.
        crops: See `crops.open_crops`.
        points: (5, 2), landmarks in the crops.
        encoder: A face encoder that no training has used.
        count: Number of people.

    Returns:
        Signal to noise in dB and L1 of 8-bit values in units of their range, means over pictures, and the mean cosine
        between crop and reconstruction, and between crops of different people.
    """
    first = np.unique(crops["person"], return_index=True)[1]
    chosen = np.sort(np.random.default_rng(0).permutation(first)[:count])
    photos, styled = crops["images"][chosen], crops["styled"][np.flatnonzero(np.isin(crops["styled_of"], chosen))[::2]]
    made, drawn = rebuild(net, photos), rebuild(net, styled)
    truth, found = (unit(encoder.embed(np.stack([encoder.crop(i, points) for i in of]))) for of in (photos, made))
    return {
        "people": len(photos),
        "psnr": signal_to_noise(photos, made),
        "psnr, styled": signal_to_noise(styled, drawn),
        "l1": float(np.abs(photos.astype(np.float32) - made).mean() / 255),
        "similarity to the crop": float((truth * found).sum(1).mean()),
        "other people": float((truth * np.roll(truth, 1, axis=0)).sum(1).mean()),
    }


@torch.no_grad()
def rebuild(net: Any, images: np.ndarray) -> np.ndarray:
    """Encode and decode (n, side, side, 3) uint8."""
    made = []
    for start in range(0, len(images), BATCH):
        pixels = to_tensor(torch.from_numpy(images[start : start + BATCH]).to(net.device))
        made.append(net.decode(net.encode(pixels).latents).sample.clamp(-1, 1).permute(0, 2, 3, 1).cpu())
    return ((torch.cat(made) + 1) * 127.5).round().to(torch.uint8).contiguous().numpy()


def signal_to_noise(images: np.ndarray, made: np.ndarray) -> float:
    """Peak signal to noise in dB, a mean over pictures."""
    error = np.square(images.astype(np.float32) - made).mean((1, 2, 3))
    return float((10 * np.log10(255**2 / np.maximum(error, 1e-6))).mean())
