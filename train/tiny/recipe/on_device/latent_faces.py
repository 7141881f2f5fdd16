"""The faces in latents: where they are, and their embeddings with a gradient."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..device import autocast
from .faces import embed


class LatentFaces:
    """The faces that latents show.

    Args:
        autoencoder: Decodes them.
        landmarks: A `LandmarkNet`.
        encoder: The default face encoder.
    """

    def __init__(self, autoencoder: Any, landmarks: nn.Module, encoder: nn.Module) -> None:
        self.decoder, self.scale = autoencoder.decoder, autoencoder.config.scaling_factor
        self.landmarks, self.encoder = landmarks, encoder

    def decode(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents (batch, channels, side, side) → pictures (batch, 3, side, side), about [0, 1]."""
        with autocast():
            return self.decoder(latents / self.scale).float() / 2 + 0.5

    def find(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents → landmarks (batch, 5, 2) in pixels."""
        images = self.decode(latents)
        with autocast():
            return self.landmarks(images)

    def embed(self, latents: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
        """Latents and landmarks → embeddings (batch, dim), with a gradient."""
        images = self.decode(latents)
        with autocast():
            return embed(self.encoder, images, points).float()
