"""Punishment of people in a picture who look like each other."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..losses import FaceEmbedder
from ..losses.identity_losses import cosine


@dataclass(frozen=True, eq=False)
class BlendingReward:
    """`−mean_{j≠i} cos(φ(g_i), t_j)`: how much the face of person i resembles the picture's other people, negated.

    WithAnyone (arXiv 2510.14975) measures it as identity blending, eq. 10; as a reward it is ours.

    Attributes:
        embedder: Face encoder of the reward.
    """

    embedder: FaceEmbedder

    def __call__(
        self,
        face_images: torch.Tensor,
        landmarks: torch.Tensor,
        target_embeds: torch.Tensor,
        known: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Reward faces.

        Args:
            face_images: (faces, 3, height, width), RGB in [0, 1].
            landmarks: (faces, 5, 2), pixels in `face_images`.
            target_embeds: (faces, dim), by the encoder of `embedder`.
            known: (pictures, people), which faces of a picture are people; None for one face per picture.

        Returns:
            (faces,), −1 to 1; 0 for a person who is alone.
        """
        if known is None:
            return target_embeds.new_zeros(len(target_embeds))
        found, targets = (x.unflatten(0, known.shape) for x in (self.embedder(face_images, landmarks), target_embeds))
        others = known[:, None] & ~torch.eye(known.shape[1], dtype=torch.bool, device=known.device)
        likeness = torch.where(others, cosine(found[:, :, None], targets[:, None]), 0)
        return -(likeness.sum(2) / others.sum(2).clamp(min=1)).flatten()
