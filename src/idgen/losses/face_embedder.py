"""Embeddings of the faces in pictures, with a gradient."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from ..errors import EncoderMismatchError, LossError
from ..faces import DLIB_TEMPLATE, DlibEncoder, FaceDetector, similarity_transform, warp_faces
from ..faces.assignment import assign_faces


class Landmarks(NamedTuple):
    """Positions of faces.

    Attributes:
        points: (batch, 5, 2), x and y in pixels; an arbitrary finite position for samples without a face.
        found: (batch,), whether there is a face.
    """

    points: torch.Tensor
    found: torch.Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class FaceEmbedder:
    """A face encoder on aligned crops, with a gradient through the network and the warp to the pixels.

    Landmarks are constants. They come from the target photo (WithAnyone's "GT-aligned", arXiv 2510.14975, eq. 6), so
    that no face needs to be visible in the prediction, or from `find_landmarks` on the prediction.

    Attributes:
        name: Name of the encoder; embeddings to compare with must have the same name.
        encoder: Frozen module: (batch, 3, size, size) RGB in [0, 1] → (batch, dim).
        template: (5, 2), positions of the landmarks in its crop, pixels.
        size: Side of its crop, pixels.
        detector: Finds what the encoder embeds, if that is no face.

    Raises:
        LossError: The encoder is not frozen.
    """

    name: str
    encoder: nn.Module
    template: np.ndarray
    size: int
    detector: FaceDetector | None = None

    def __post_init__(self) -> None:
        if any(parameter.requires_grad for parameter in self.encoder.parameters()):
            raise LossError(f"The face encoder {type(self.encoder).__name__} must be frozen: requires_grad_(False).")

    @classmethod
    def dlib(cls) -> FaceEmbedder:
        """The default encoder."""
        return cls(name=DlibEncoder.name, encoder=DlibEncoder(), template=DLIB_TEMPLATE, size=DlibEncoder.size)

    def __call__(self, images: torch.Tensor, landmarks: torch.Tensor) -> torch.Tensor:
        """Embed one face per picture.

        Args:
            images: (batch, 3, height, width), RGB in [0, 1].
            landmarks: (batch, 5, 2), pixels.

        Returns:
            (batch, dim), not normalised.
        """
        return self.encoder(self.crop(images, landmarks))

    def crop(self, images: torch.Tensor, landmarks: torch.Tensor) -> torch.Tensor:
        """Aligned crops, (batch, 3, size, size), which `encoder` reads; arguments as for a call."""
        return warp_faces(images, landmarks, self.template, self.size)

    def check_same_encoder(self, name: str) -> None:
        """Check that embeddings are of the same encoder: cosines with those of another one are meaningless.

        Raises:
            EncoderMismatchError: The names differ.
        """
        if name != self.name:
            raise EncoderMismatchError(
                f"Generated faces are embedded by '{self.name}' and would be compared with embeddings by '{name}'. "
                "Use the encoder that made them, or embed the photos again."
            )

    def boxes(self, landmarks: torch.Tensor) -> torch.Tensor:
        """Boxes that `__call__` reads: landmarks (batch, 5, 2) → (batch, 4), x0, y0, x1, y1 in pixels."""
        points = landmarks.detach().double()
        template = torch.as_tensor(self.template, device=points.device).expand_as(points)
        to_crop = similarity_transform(points, template)
        side = torch.tensor([-0.5, self.size - 0.5], dtype=points.dtype, device=points.device)
        corners = torch.cartesian_prod(side, side)
        linear, shift = to_crop[..., :2], to_crop[..., 2:]
        in_image = torch.linalg.solve(linear, corners.T - shift).mT
        # the warp averages blocks of pixels and interpolates between them: two blocks beyond the corner
        block = 2 / linear[..., 0].norm(dim=-1).clamp(max=1)[:, None]
        return torch.cat([in_image.amin(1) - block, in_image.amax(1) + block + 1], -1)


def find_people(
    images: torch.Tensor, detector: FaceDetector, embedder: FaceEmbedder, targets: torch.Tensor, wanted: torch.Tensor
) -> Landmarks:
    """Landmarks of each person in pictures, without a gradient.

    Of one person per picture, those of the largest face. Otherwise the largest faces, as many as people, are assigned
    to the people whom they resemble, all together (Hungarian matching), as `idgen evaluate` does.

    Args:
        images: (batch, 3, height, width), RGB about [0, 1].
        detector: Finds faces in uint8 pictures.
        embedder: Encoder of `targets`.
        targets: (faces, dim), embeddings of the people; those of one picture are next to each other.
        wanted: (faces,), False for rows that are nobody.
    """
    people = len(targets) // len(images)
    if people == 1:
        return find_landmarks(images, detector)
    points = _somewhere(images).expand(len(targets), -1, -1).clone()
    found = torch.zeros(len(targets), dtype=torch.bool, device=images.device)
    for i, pixels in enumerate(_pixels(images)):
        rows = [row for row in range(i * people, (i + 1) * people) if wanted[row]]
        faces = sorted(detector.detect(pixels), key=lambda face: -face.area)[: len(rows)]
        if not faces:
            continue
        landmarks = torch.from_numpy(np.stack([face.landmarks for face in faces])).to(points)
        with torch.no_grad():
            own = images[i : i + 1].detach().float().clamp(0, 1).expand(len(faces), -1, -1, -1)
            embeds = embedder(own, landmarks)
        for face, person in zip(*assign_faces(embeds.cpu().numpy(), targets[rows].cpu().numpy()), strict=True):
            points[rows[person]], found[rows[person]] = landmarks[face], True
    return Landmarks(points, found)


def find_landmarks(images: torch.Tensor, detector: FaceDetector) -> Landmarks:
    """Landmarks of the largest face in each picture, without a gradient.

    Args:
        images: (batch, 3, height, width), RGB about [0, 1].
        detector: Finds faces in uint8 pictures.
    """
    found = [max(detector.detect(pixels), key=lambda face: face.area, default=None) for pixels in _pixels(images)]
    points = [_somewhere(images) if face is None else torch.from_numpy(face.landmarks) for face in found]
    return Landmarks(
        torch.stack([each.to(images.device) for each in points]),
        torch.tensor([face is not None for face in found], device=images.device),
    )


def _pixels(images: torch.Tensor) -> np.ndarray:
    """(batch, height, width, 3), uint8."""
    return (images.detach().float().clamp(0, 1) * 255).round().to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def _somewhere(images: torch.Tensor) -> torch.Tensor:
    """(5, 2), landmarks of a face that was not found: they must be finite, and have no weight."""
    return torch.from_numpy(DLIB_TEMPLATE / DlibEncoder.size * min(images.shape[-2:])).to(images.device)
