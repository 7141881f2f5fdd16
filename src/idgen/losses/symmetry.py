"""Symmetry: the left and the right half of a generated face show the same person."""

from __future__ import annotations

import torch

from .identity_losses import cosine


def symmetry_loss(generated_halves: tuple[torch.Tensor, torch.Tensor], frontality: torch.Tensor) -> torch.Tensor:
    """`ρ (1 − cos(φ(left), φ(right)))` (SymFace, arXiv 2409.11816).

    SymFace compares embeddings of the two halves of frontal photos. A frozen encoder reads whole faces, so here each
    half is completed by its mirror image.

    Args:
        generated_halves: (batch, dim), embeddings of the left and of the right half; see `mirrored_halves`.
        frontality: (batch,), ρ; see `frontality`.

    Returns:
        (batch,), 0 to 2.
    """
    return frontality * (1 - cosine(*generated_halves))


def mirrored_halves(crops: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Aligned crops → the faces made of their left and of their right half, and its mirror image; all of one shape."""
    width = crops.shape[-1]
    left, right = crops[..., : (width + 1) // 2], crops[..., width // 2 :]
    return (
        torch.cat([left, left.flip(-1)[..., width % 2 :]], -1),
        torch.cat([right.flip(-1), right[..., width % 2 :]], -1),
    )


def frontality(landmarks: torch.Tensor) -> torch.Tensor:
    """`ρ = max(0, 1 − 2 D)`, with the distance D of the nose from the middle of the eyes along the line through them,
    in eye distances: 1 for a frontal face, 0 where the nose is below an eye. It does not depend on the roll.

    SymFace's ρ is also a falling function of this distance; its scale is chosen for the data set.

    Args:
        landmarks: (batch, 5, 2), the eyes first, then the nose.

    Returns:
        (batch,).
    """
    left, right, nose = landmarks[:, 0], landmarks[:, 1], landmarks[:, 2]
    between = right - left
    along = ((nose - (left + right) / 2) * between).sum(-1) / between.square().sum(-1)
    return (1 - 2 * along.abs()).clamp(min=0)
