"""Updates of the autoencoder and of the landmark network."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

from ..details import DEVIATION
from ..device import autocast, device
from ..face_loss import FaceLoss
from .captured import Losses, Trained
from .faces import LandmarkNet, landmark_loss
from .resident import Resident
from .start import CHANNELS, FINE

STYLED = 0.33
"""Share of styled pictures."""
NOISE = 0.05
"""Deviation of the noise on the latents that are decoded."""
FACE, SPREAD = 0.3, 0.01
"""Weights of the face loss, and of the loss that keeps mean and deviation of the latents."""


def autoencoder_update(
    data: Resident, net: Any, trained: Trained, batch: int, patch: int, faces: FaceLoss | None
) -> Callable[[], Losses]:
    """L1 on patches or whole pictures, the default encoder's view of half of them, and latents kept at their scale.

    Args:
        patch: Side of the patches; 0 for whole pictures.
        faces: The face loss, for whole pictures.
    """
    wanted = torch.tensor([1.0] * (CHANNELS - FINE) + [DEVIATION] * FINE, device=device())
    scale = net.config.scaling_factor

    def update() -> Losses:
        rows = data.rows(batch, STYLED)
        real = data.pictures(rows)
        if patch:
            real = random_patches(real, patch)
        with autocast():
            latents = net.encoder(real * 2 - 1).float() * scale
            made = net.decoder((latents + NOISE * torch.randn_like(latents)) / scale).float() / 2 + 0.5
        l1 = 2 * (made - real).abs().mean()
        kept = (latents.mean((0, 2, 3)) ** 2).mean() + ((latents.std((0, 2, 3)) - wanted) ** 2).mean()
        loss, told = l1 + SPREAD * kept, {"l1": l1.detach(), "spread": kept.detach()}
        if faces is not None:
            with autocast():
                face = faces(made[: batch // 2], real[: batch // 2]).float().mean()
            loss, told = loss + FACE * face, {**told, "face": face.detach()}
        return told | {"norm": trained.step(loss)}

    return update


def random_patches(images: torch.Tensor, side: int) -> torch.Tensor:
    """One patch of each picture, at multiples of 8 pixels: (batch, 3, side, side)."""
    batch, places = len(images), (images.shape[-1] - side) // 8 + 1
    corner = (torch.rand(2, batch, device=images.device) * places).long() * 8
    at = torch.arange(side, device=images.device)
    y, x = (corner[i][:, None] + at for i in range(2))
    which = torch.arange(batch, device=images.device)[:, None, None]
    return images.permute(0, 2, 3, 1)[which, y[:, :, None], x[:, None, :]].permute(0, 3, 1, 2)


def landmark_update(data: Resident, net: LandmarkNet, trained: Trained, batch: int) -> Callable[[], Losses]:
    """The landmark network, on photos and styled pictures."""

    def update() -> Losses:
        rows = data.rows(batch, 0.5)
        points = data.points_of(rows)
        loss = landmark_loss(net, data.pictures(rows), points)
        return {"distance": loss.detach(), "norm": trained.step(loss)}

    return update
