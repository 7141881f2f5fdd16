"""Local patches: the eyes, the nose and the mouth of the generated face and of its target."""

from __future__ import annotations

import numpy as np
import torch

from .parametrisation import at_least_float32

SIDE = 40 / 128
"""Side of a patch, as a share of that of the crop: TP-GAN's patches of the eyes have 40 of 128 px."""


def patch_loss(generated_patches: torch.Tensor, target_patches: torch.Tensor) -> torch.Tensor:
    """Mean absolute difference of pixels on the eyes, the nose and the mouth.

    TP-GAN (arXiv 1704.04086, section 3.2) has a network and a pixel-wise loss for each of the four patches.

    Args:
        generated_patches: (batch, patches, 3, side, side), see `face_patches`.
        target_patches: The same of the target; constants.

    Returns:
        (batch,).
    """
    return (at_least_float32(generated_patches) - at_least_float32(target_patches).detach()).abs().flatten(1).mean(1)


def face_patches(crops: torch.Tensor, template: np.ndarray) -> torch.Tensor:
    """Cut the patches of aligned crops.

    Args:
        crops: (batch, 3, size, size).
        template: (5, 2), landmarks in the crop: eyes, nose, corners of the mouth.

    Returns:
        (batch, 4, 3, side, side).
    """
    size = crops.shape[-1]
    side = round(SIDE * size)
    centres = np.concatenate([template[:3], template[3:].mean(0, keepdims=True)])
    corners = np.clip(np.round(centres + 0.5 - side / 2).astype(int), 0, size - side)
    return torch.stack([crops[..., y : y + side, x : x + side] for x, y in corners.tolist()], 1)
