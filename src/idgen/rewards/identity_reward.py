"""Similarity of a generated face to its references."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import LossError
from ..losses import FaceEmbedder
from ..losses.identity_losses import cosine, over_references
from ..losses.settings import Over


@dataclass(frozen=True, eq=False, kw_only=True)
class IdentityReward:
    """Identity consistency, the mean `cos(φ(x0), φ(reference))` over references (ID-Aligner, arXiv 2404.15449, eq. 3),
    or the highest.

    With a hinge it is `min(cos, m)`: ReFL's `relu(m − R)` (ImageReward, arXiv 2304.05977), up to a constant. A face
    that is similar enough is not optimised further, which guards against copied photos and against pictures that only
    the encoder finds similar.

    Attributes:
        embedder: Face encoder of the reward; evaluate with another one.
        hinge: m, a cosine; None for no hinge.
        over: "mean" or "max" over the references.

    Raises:
        LossError: The hinge is not in (-1, 1].
    """

    embedder: FaceEmbedder
    hinge: float | None = None
    over: Over = "mean"

    def __post_init__(self) -> None:
        if self.hinge is not None and not -1 < self.hinge <= 1:
            raise LossError(f"hinge must be a cosine in (-1, 1], not {self.hinge}.")

    def __call__(
        self, face_images: torch.Tensor, landmarks: torch.Tensor, reference_embeds: torch.Tensor
    ) -> torch.Tensor:
        """Reward pictures.

        Args:
            face_images: (batch, 3, height, width), RGB in [0, 1]: whole pictures, or crops from `FaceDecoder`.
            landmarks: (batch, 5, 2), pixels in `face_images`.
            reference_embeds: (batch, references, dim) or (batch, dim), by the encoder of `embedder`.

        Returns:
            (batch,), −1 to 1.

        Raises:
            LossError: The shape of the references does not match the pictures or the encoder.
        """
        found = self.embedder(face_images, landmarks)
        references = reference_embeds[:, None] if reference_embeds.ndim == 2 else reference_embeds
        if references.shape[::2] != found.shape or not references.shape[1]:
            raise LossError(
                f"References must have the shape ({len(found)}, references, {found.shape[1]}), not "
                f"{tuple(reference_embeds.shape)}."
            )
        reward = over_references(cosine(found[:, None], references), self.over)
        return reward if self.hinge is None else reward.clamp(max=self.hinge)
