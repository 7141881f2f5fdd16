"""A perceptual loss by the default face encoder."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from idgen.faces import DLIB_TEMPLATE, DlibEncoder, similarity_transform
from idgen.losses import feature_loss


class FaceLoss(nn.Module):
    """Distance of features and of embeddings, one value per sample.

    Args:
        template: (5, 2), landmarks in the crops.
        side: Side of the crops in pixels.
        encoder: The default face encoder, unless it is opened here.
    """

    grid: torch.Tensor

    def __init__(self, template: np.ndarray, side: int, encoder: DlibEncoder | None = None) -> None:
        super().__init__()
        self.encoder = encoder or DlibEncoder()
        size = self.encoder.size
        chip_to_crop = similarity_transform(torch.from_numpy(DLIB_TEMPLATE), torch.from_numpy(template)).float()
        pixel = torch.arange(size, dtype=torch.float32)
        y, x = torch.meshgrid(pixel, pixel, indexing="ij")
        points = torch.stack([x, y, torch.ones_like(x)], -1) @ chip_to_crop.T
        self.register_buffer("grid", 2 * (points + 0.5)[None] / side - 1, persistent=False)

    def forward(self, made: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
        """(batch, 3, side, side) in [0, 1], twice → (batch,): `feature_loss`, and the distance of embeddings.

        The distance of embeddings is squared and doubled: 0.6, dlib's threshold for two people, then weighs as much as
        a relative error of 70 % in the features.
        """
        with torch.no_grad():
            wanted, real_embedding = self.encoder.inner_features(self.crop(real))
        found, made_embedding = self.encoder.inner_features(self.crop(made))
        return feature_loss(found, wanted) + 2 * (made_embedding - real_embedding).square().sum(1)

    def crop(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, 3, side, side) → the crops that the encoder reads."""
        return F.grid_sample(images, self.grid.expand(len(images), -1, -1, -1), align_corners=False)
