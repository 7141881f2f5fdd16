"""Stage `latents`: all pictures as latents, computed once."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import AutoencoderTiny
from tqdm import tqdm

from . import config
from .attributes import mirror
from .autoencoder import to_tensor
from .crops import open_crops
from .device import autocast, place
from .faces import save

BATCH = 64


def make_latents(settings: config.Config, crops: Path, autoencoder: Path, folder: Path) -> None:
    """Write each photo as it is and mirrored, and each styled picture one of the two; see `open_latents`."""
    net: Any = place(AutoencoderTiny.from_pretrained(autoencoder)).requires_grad_(False)
    data = open_crops(crops, "train")
    photos, styled = np.arange(len(data["images"])), np.arange(len(data["styled"]))
    parts = [
        (data["images"], np.zeros(len(photos), bool), np.zeros(len(photos), np.int8), photos),
        (data["images"], np.ones(len(photos), bool), np.zeros(len(photos), np.int8), photos),
        (data["styled"], styled % 2 == 1, data["styled_as"], data["styled_of"]),
    ]
    flips, style, photo = (np.concatenate(column) for column in list(zip(*parts, strict=True))[1:])
    _write(folder, len(style), (batch for images, flip, *_ in parts for batch in _encode(net, images, flip)))
    save(folder / "table.npz", mirrored=flips, style=style, photo=photo)


def open_latents(folder: Path, attributes: np.ndarray) -> dict[str, np.ndarray]:
    """Read what this stage wrote.

    Args:
        folder: Of the stage.
        attributes: (photos, 7), of the training photos.

    Returns:
        `latents` (n, channels, side, side) float16, on disk until read, scaled for diffusion; `style` (n,) with 0 for
        the plain photo; `photo` (n,), the row of the training crops it was made from; `attributes` (n, 7) of the
        picture.
    """
    with np.load(folder / "table.npz", allow_pickle=False) as arrays:
        table = dict(arrays)
    of = attributes[table["photo"]]
    table["attributes"] = np.where(table.pop("mirrored")[:, None], mirror(of), of)
    return {**table, "latents": np.load(folder / "latents.npy", mmap_mode="c")}


def _write(folder: Path, count: int, batches: Iterator[np.ndarray]) -> None:
    """Write `count` latents to `latents.npy` as they come, whole or not at all."""
    temporary, row = folder / "latents.tmp.npy", 0
    first = next(batches)
    latents = np.lib.format.open_memmap(temporary, "w+", first.dtype, (count, *first.shape[1:]))
    for batch in itertools.chain([first], batches):
        latents[row : row + len(batch)] = batch
        row += len(batch)
    latents.flush()
    temporary.replace(folder / "latents.npy")


@torch.no_grad()
def _encode(net: Any, images: np.ndarray, flips: np.ndarray) -> Iterator[np.ndarray]:
    """Scaled latents (n, channels, smaller side, smaller side) float16 of (n, side, side, 3) uint8, batch by batch."""
    for start in tqdm(range(0, len(images), BATCH), desc="latents", mininterval=10):
        part = slice(start, start + BATCH)
        batch = np.where(flips[part, None, None, None], images[part, :, ::-1], images[part])
        with autocast():
            latents = net.encode(to_tensor(torch.from_numpy(batch).to(net.device))).latents
        yield (latents.float() * net.config.scaling_factor).half().cpu().numpy()
