"""The faces in latents: where they are, and their embeddings with a gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..device import autocast
from .faces import embed


class LatentFaces:
    """Embeddings of the faces in latents, with a gradient."""

    def __init__(self, autoencoder: Any, landmarks: nn.Module, encoder: nn.Module) -> None:
        self.decoder, self.scale = autoencoder.decoder, autoencoder.config.scaling_factor
        self.landmarks, self.encoder = landmarks, encoder

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """(batch, channels, side, side) → pictures about [0, 1]."""
        with autocast():
            return self.decoder(latents / self.scale).float() / 2 + 0.5

    def find(self, latents: torch.Tensor) -> torch.Tensor:
        """Landmarks, (batch, 5, 2)."""
        images = self.decode(latents)
        with autocast():
            return self.landmarks(images)

    def embed(self, latents: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """(batch, dim)."""
        images = self.decode(latents)
        with autocast():
            return embed(self.encoder, images, points).float()
