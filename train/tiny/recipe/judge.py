"""A small classifier that recognises the styles, trained on filtered photos: the judge of generated pictures."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from tqdm import trange

from .autoencoder import to_tensor
from .crops import open_crops
from .device import device
from .loop import random_for
from .styles import STYLES

BATCH, STEPS = 64, 600


def train_judge(crops: Path, seed: int) -> tuple[nn.Module, float]:
    """The classifier, and its accuracy on people it has not seen (a mean over styles, the plain photo among them)."""
    torch.manual_seed(seed)
    net = _network(1 + len(STYLES)).to(device())
    optimizer = torch.optim.AdamW(net.parameters(), 2e-3)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1, 0.01, STEPS)
    images, styles = _examples(crops, "train")
    for step in trange(STEPS, desc="judge", mininterval=10):
        random = random_for(seed, step)
        # A style first, then a picture of it: plain photos are no more than any other.
        wanted = torch.randint(1 + len(STYLES), (BATCH,), generator=random)
        rows = [np.flatnonzero(styles == int(style)) for style in wanted]
        chosen = [int(r[int(torch.randint(len(r), (1,), generator=random))]) for r in rows]
        pixels = _soften(to_tensor(torch.from_numpy(images[chosen]).to(device())), random)
        loss = F.cross_entropy(net(pixels), wanted.to(device()))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
    net.eval()
    images, styles = _examples(crops, "test")
    right = recognise(net, images) == styles
    return net, float(np.mean([right[styles == style].mean() for style in range(1 + len(STYLES))]))


@torch.no_grad()
def recognise(net: nn.Module, images: np.ndarray) -> np.ndarray:
    """(n, side, side, 3) uint8 → (n,) numbers of styles, 0 for the plain photo."""
    parts = [
        net(to_tensor(torch.from_numpy(part).to(device()))) for part in np.array_split(images, len(images) // 64 + 1)
    ]
    return torch.cat(parts).argmax(1).cpu().numpy()


def _soften(pixels: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """Take away some sharpness, a different lot in each batch, and of half the pictures none: what is generated is
    softer than a filtered photo, and shall be judged by its style."""
    side = pixels.shape[-1]
    smaller = int(torch.randint(side // 3, side, (1,), generator=random))
    soft = F.interpolate(pixels, smaller, mode="bilinear", antialias=True)
    soft = F.interpolate(soft, side, mode="bilinear")
    chosen = (torch.rand(len(pixels), generator=random) < 0.5).to(pixels.device)
    return torch.where(chosen[:, None, None, None], soft, pixels)


def _examples(crops: Path, part: str) -> tuple[np.ndarray, np.ndarray]:
    data = open_crops(crops, part)
    photos, styled = data["images"], data["styled"]
    return np.concatenate([photos, styled]), np.concatenate([np.zeros(len(photos), np.int8), data["styled_as"]])


def _network(classes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for before, after in ((3, 16), (16, 32), (32, 64), (64, 64)):
        layers += [nn.Conv2d(before, after, 3, stride=2, padding=1), nn.BatchNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, classes))
