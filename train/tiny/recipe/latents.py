"""Stage 3: all pictures → latents, once, so that the base model never sees a pixel."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from diffusers import AutoencoderTiny
from tqdm import tqdm

from .attributes import mirror
from .autoencoder import to_tensor
from .device import autocast, place

BATCH = 64


def make_latents(crops: Path, autoencoder: Path, folder: Path) -> None:
    """Write `latents.npz`: each photo as it is and mirrored, each styled picture one of the two.

    It holds `latents` (n, channels, side, side) float16, already scaled to unit variance, `style` (n,) with 0 for
    the plain photo, `attributes` (n, 3), and `photo` (n,), the row of `crops/train.npz` it was made from.
    """
    net = place(AutoencoderTiny.from_pretrained(autoencoder)).requires_grad_(False)
    with np.load(crops / "train.npz", allow_pickle=False) as arrays:
        data = dict(arrays)
    photos = np.arange(len(data["images"]))
    odd = (np.arange(len(data["styled"])) % 2 == 1)[:, None, None, None]
    mirrored = mirror(data["attributes"])
    of = data["styled_of"]
    parts = [
        (data["images"], data["attributes"], np.zeros(len(photos), np.int8), photos),
        (data["images"][:, :, ::-1], mirrored, np.zeros(len(photos), np.int8), photos),
        (
            np.where(odd, data["styled"][:, :, ::-1], data["styled"]),
            np.where(odd[:, :, 0, 0], mirrored[of], data["attributes"][of]),
            data["styled_as"],
            of,
        ),
    ]
    images, attributes, style, photo = (np.concatenate(column) for column in zip(*parts, strict=True))
    temporary = folder / "latents.tmp.npz"
    np.savez(
        temporary,
        allow_pickle=False,
        latents=encode(net, images),
        attributes=attributes,
        style=style,
        photo=photo,
    )
    temporary.replace(folder / "latents.npz")


@torch.no_grad()
def encode(net: AutoencoderTiny, images: np.ndarray) -> np.ndarray:
    """(n, side, side, 3) uint8 → scaled latents (n, channels, side / 4, side / 4) float16."""
    found = []
    for start in tqdm(range(0, len(images), BATCH), desc="latents", mininterval=10):
        pixels = to_tensor(torch.from_numpy(images[start : start + BATCH]).to(net.device))
        with autocast():
            found.append((net.encode(pixels).latents.float() * net.config.scaling_factor).half().cpu().numpy())
    return np.concatenate(found)
