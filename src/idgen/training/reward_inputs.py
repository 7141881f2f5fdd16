"""What rewards may read."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch

from ..errors import LossError
from ..faces import FaceDetector
from ..losses import FaceCrops, FaceDecoder, FaceEmbedder, Inputs, Landmarks, find_landmarks, find_people
from ..losses.parametrisation import at_least_float32
from .base import BaseModel
from .batch import Batch


class RewardInputs(Inputs):
    """Inputs of rewards on generated pictures; pictures and faces are computed when they are first read.

    With several people in a picture, inputs of faces are (faces, …), those of one picture next to each other.

    Args:
        base: Decodes the pictures.
        latents: x0, (pictures, channels, height, width).
        batch: What the pictures were generated for, a row for each, or the rows of the batch several times over.

    Attributes:
        prompts: Of each picture.
        persons: (pictures,), a number for each person.
        target_embeds: (pictures, dim), embeddings of the targets' faces.
        reference_embeds: (pictures, photos, dim), of the photos to compare with, the target first.
        has_identity: (pictures,), False where the identity was dropped.
        known: (pictures, people), which faces are people of the data; only if pictures show several people.
    """

    def __init__(self, base: BaseModel, latents: torch.Tensor, batch: Batch) -> None:
        self._base, self._latents = base, latents
        copies = len(latents) // len(batch)
        self.prompts: Sequence[str] = batch.prompts * copies
        self.persons, self.has_identity = batch.persons.repeat(copies), batch.has_identity.repeat(copies)
        self.target_embeds = batch.target_embeds.repeat(copies, 1)
        self.reference_embeds = batch.references().repeat(copies, 1, 1)
        self._found = (batch.face_found & batch.known.flatten()).repeat(copies)
        self._people = batch.people
        if batch.people > 1:
            self.persons, self.known = self.persons.clamp(min=0), batch.known.repeat(copies, 1)
        self._by_encoder = {name: each.repeat(copies, 1, 1) for name, each in batch.by_encoder.items()}

    def by(self, encoder: str) -> Inputs:
        """The same with the embeddings of another face encoder of the rewards."""
        if encoder not in self._by_encoder:
            return self
        return OtherEmbeddings(self, self._by_encoder[encoder])


class OtherEmbeddings(Inputs):
    """Inputs of rewards with the embeddings of another face encoder.

    Args:
        main: All other inputs.
        reference_embeds: (pictures, photos, dim).
    """

    def __init__(self, main: RewardInputs, reference_embeds: torch.Tensor) -> None:
        self._main = main
        self.reference_embeds, self.target_embeds = reference_embeds, reference_embeds[:, 0]

    def __getitem__(self, name: str) -> Any:
        return getattr(self, name) if name in vars(self) else self._main[name]

    def _names(self) -> list[str]:
        return self._main._names()


class PictureInputs(RewardInputs):
    """Inputs without a gradient, for methods that need none.

    Args:
        base: See `RewardInputs`; so are `latents` and `batch`.
        detector: Finds the faces, if a reward reads them.
        embedder: Face encoder that tells several people in a picture apart.
    """

    def __init__(
        self,
        base: BaseModel,
        latents: torch.Tensor,
        batch: Batch,
        detector: FaceDetector | None = None,
        embedder: FaceEmbedder | None = None,
    ) -> None:
        super().__init__(base, latents, batch)
        self._detector, self._embedder = detector, embedder

    @cached_property
    def images(self) -> torch.Tensor:
        """(pictures, 3, height, width), RGB in [0, 1]."""
        return self._base.decode(self._latents).clamp(0, 1)

    @property
    def face_images(self) -> torch.Tensor:
        """The whole pictures, in which the faces are at `landmarks`."""
        return self.images.repeat_interleave(self._people, 0)

    @property
    def landmarks(self) -> torch.Tensor:
        """(pictures, 5, 2), pixels in `face_images`."""
        return self._faces.points

    @property
    def face_found(self) -> torch.Tensor:
        """(pictures,), whether the detector has found a face."""
        return self._faces.found

    @cached_property
    def _faces(self) -> Landmarks:
        if self._detector is None:
            raise LossError("A reward reads the faces of the pictures: give the step a detector.")
        if self._people == 1:
            return find_landmarks(self.images, self._detector)
        if self._embedder is None:
            raise LossError("A reward reads the faces of several people: give the step an embedder.")
        return find_people(self.images, self._detector, self._embedder, self.target_embeds, self._found)


class DifferentiableInputs(RewardInputs):
    """Inputs with a gradient; of the faces, only their part of the latent is decoded with a graph.

    Args:
        base: See `RewardInputs`; so are `latents` and `batch`.
        embedders: Face encoders, whose crops decide which part of a latent is decoded.
        decoder: Decodes that part.
        detector: Finds the faces.

    Attributes:
        face_found: (pictures,), whether the detector has found a face.
    """

    def __init__(
        self,
        base: BaseModel,
        latents: torch.Tensor,
        batch: Batch,
        embedders: Sequence[FaceEmbedder],
        decoder: FaceDecoder,
        detector: FaceDetector,
    ) -> None:
        super().__init__(base, latents, batch)
        self._embedders, self._decoder = embedders, decoder
        self._whole = decoder.whole(latents)
        images = self._whole.images
        self._faces = find_people(images, detector, embedders[0], self.target_embeds, self._found)
        self.face_found = self._faces.found

    @cached_property
    def images(self) -> torch.Tensor:
        """(pictures, 3, height, width), RGB about [0, 1]; not clamped, since clamped values have no gradient."""
        return self._base.decode(self._latents)

    @cached_property
    def face_images(self) -> torch.Tensor:
        """(pictures, 3, height, width), RGB about [0, 1], the decoded part of each picture."""
        return at_least_float32(self._crops.images)

    @cached_property
    def landmarks(self) -> torch.Tensor:
        """(pictures, 5, 2), pixels in `face_images`."""
        return self._faces.points - self._crops.offsets[:, None]

    @cached_property
    def face_points(self) -> torch.Tensor:
        """(pictures, 5, 2), pixels in the whole picture."""
        return self._faces.points

    @cached_property
    def _crops(self) -> FaceCrops:
        boxes = torch.stack([embedder.boxes(self._faces.points) for embedder in self._embedders])
        around = torch.cat([boxes[..., :2].amin(0), boxes[..., 2:].amax(0)], -1)
        return self._decoder(self._latents, around, self._whole)
