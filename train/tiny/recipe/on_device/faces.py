"""Faces of generated pictures without leaving the device: a small network for the landmarks, and aligned crops."""

from __future__ import annotations

from functools import cache
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import nn

from idgen.faces import DLIB_TEMPLATE, DlibEncoder, similarity_transform

from ..device import autocast

SIDE = 64
"""Side of the pictures that the landmark network reads."""


def embed(encoder: nn.Module, images: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Embeddings of one face per picture, (batch, dim), with a gradient.

    Unlike `FaceEmbedder` it does not average pixels first, which is right for faces that are smaller than the
    encoder's crop, and it never waits for the device.

    Args:
        encoder: The default face encoder.
        images: (batch, 3, side, side) in [0, 1].
        points: (batch, 5, 2), landmarks in pixels; constants.
    """
    template = _template(points.device).expand(len(points), -1, -1)
    to_image = similarity_transform(template, points.detach().float())
    return encoder(F.grid_sample(images, _grid(to_image, DlibEncoder.size, images.shape[-1]), align_corners=False))


class LandmarkNet(nn.Module):
    """Five landmarks of the face in a crop: (batch, 3, side, side) in [0, 1] → (batch, 5, 2) pixels."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for a, b in pairwise((3, 32, 64, 96, 128)):
            layers += [nn.Conv2d(a, b, 3, 2, 1), nn.GroupNorm(8, b), nn.SiLU(), nn.Conv2d(b, b, 3, 1, 1), nn.SiLU()]
        self.features = nn.Sequential(*layers)
        self.head = nn.Sequential(nn.Flatten(), nn.Linear(128 * 16, 256), nn.SiLU(), nn.Linear(256, 10))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        side = images.shape[-1]
        small = F.interpolate(images, size=(SIDE, SIDE), mode="bilinear", antialias=False, align_corners=False)
        return ((self.head(self.features(small)).unflatten(1, (5, 2)) + 0.5) * side).float()


def moved(images: torch.Tensor, points: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Pictures turned, scaled and shifted at random, with their landmarks."""
    batch, side = len(images), images.shape[-1]
    turn = (torch.rand(batch, device=images.device) - 0.5) * 0.5
    scale = 0.85 + 0.3 * torch.rand(batch, device=images.device)
    shift = (torch.rand(batch, 2, device=images.device) - 0.5) * side * 0.2
    cos, sin = turn.cos() * scale, turn.sin() * scale
    linear = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)  # of the new to the old
    middle = (side - 1) / 2
    offset = shift + middle - (linear * middle).sum(2)
    to_image = torch.cat([linear, offset[:, :, None]], 2)
    grid = _grid(to_image, side, side)
    # the inverse of a rotation is its transpose
    found = (points - offset[:, None]) @ linear / (scale * scale)[:, None, None]
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False), found


def landmark_loss(net: LandmarkNet, images: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Mean distance in shares of the side, of pictures that are moved at random."""
    pictures, wanted = moved(images, points)
    with autocast():
        found = net(pictures)
    return (found - wanted).abs().mean() / images.shape[-1]


def _grid(to_image: torch.Tensor, size: int, side: int) -> torch.Tensor:
    """Matrices (batch, 2, 3) from crop to picture → where `grid_sample` reads, (batch, size, size, 2)."""
    pixel = torch.arange(size, device=to_image.device, dtype=torch.float32)
    y, x = torch.meshgrid(pixel, pixel, indexing="ij")
    where = torch.stack([x, y, torch.ones_like(x)], -1).flatten(0, 1) @ to_image.mT
    return (2 * (where + 0.5) / side - 1).unflatten(1, (size, size))


@cache
def _template(where: torch.device) -> torch.Tensor:
    """dlib's template on a device."""
    return torch.from_numpy(DLIB_TEMPLATE).float().to(where)
