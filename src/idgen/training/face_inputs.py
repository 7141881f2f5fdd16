"""What the losses of stage one may read of faces, by each face encoder."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import torch

from ..errors import TrainingError
from ..faces.encoder import inner_features
from ..losses import Bank, Inputs
from ..losses.patches import face_patches
from ..losses.several_encoders import OF_ENCODER
from ..losses.symmetry import frontality, mirrored_halves
from .batch import Batch
from .faces import FaceReader, FacesWanted, GeneratedFaces

if TYPE_CHECKING:
    from .denoiser import IdentityDenoiser


class FaceInputs(Inputs):
    """Inputs that a face encoder computes; those of faces are (faces, …) where pictures show several people.

    Subclasses set the attributes, and say which faces are read.

    Attributes:
        latents: x0 of the targets, (batch, channels, height, width).
        target_embeds: (batch, dim), embeddings of the targets' faces.
        reference_embeds: (batch, photos, dim), of the photos to compare with, the target first.
    """

    latents: torch.Tensor
    target_embeds: torch.Tensor
    reference_embeds: torch.Tensor
    _step: IdentityDenoiser
    _batch: Batch
    _reads: set[str]

    def compute(self, names: Iterable[str]) -> None:
        """Compute these inputs now."""
        for name in names:
            getattr(self, name)

    @cached_property
    def predicted_latents(self) -> torch.Tensor:
        """x0 as predicted, or of a short rollout, (batch, channels, height, width)."""
        raise NotImplementedError

    @cached_property
    def _faces(self) -> GeneratedFaces:
        """The faces in `predicted_latents`, in the crops of the encoder."""
        raise NotImplementedError

    @cached_property
    def _older_latents(self) -> torch.Tensor:
        """x0 as the older adapter predicts it."""
        raise NotImplementedError

    @cached_property
    def _chosen_prior(self) -> torch.Tensor:
        """(batch,), rows of `_prior`."""
        raise NotImplementedError

    @cached_property
    def negatives(self) -> Bank:
        """Targets of all processes, and people drawn from the bank."""
        step, batch = self._step, self._batch
        embeds, persons = step.gather(batch.target_embeds), step.gather(batch.persons)
        if batch.people > 1:  # the other people of a picture are among the negatives of each; rows of nobody are not
            embeds, persons = embeds[persons >= 0], persons[persons >= 0]
        if self._bank is None:
            return Bank(embeds, persons)
        others = self._bank(batch.persons)
        if others.embeds.ndim == 3:
            rows = len(batch.persons)
            embeds, persons = embeds.expand(rows, -1, -1), persons.expand(rows, -1)
        return Bank(
            torch.cat([embeds, others.embeds.to(embeds)], -2), torch.cat([persons, others.persons.to(persons)], -1)
        )

    @cached_property
    def prior_embeds(self) -> torch.Tensor:
        """(batch, dim), embeddings of faces that the base model generated."""
        prior = self._prior
        if prior is None:
            raise TrainingError("The triplet loss compares with faces that the base model generated: give `prior`.")
        return prior[self._chosen_prior].to(self.latents.device).repeat_interleave(self._batch.people, 0)

    @cached_property
    def older_embeds(self) -> torch.Tensor:
        """(batch, dim), embeddings of the faces that the older adapter predicts of the same noise."""
        with torch.no_grad():
            crops = self._reader(self._older_latents, FacesWanted.of(self._batch)).crops
            return self._reader.embedder.encoder(crops)

    @cached_property
    def generated_embeds(self) -> torch.Tensor:
        """(batch, dim), embeddings of the faces in `predicted_latents`."""
        if "generated_features" in self._reads:
            return self._encoded[1]
        return self._reader.embedder.encoder(self._faces.crops)

    @cached_property
    def generated_features(self) -> list[torch.Tensor]:
        """Feature maps of the face encoder's inner layers, (batch, channels, height, width) each."""
        return self._encoded[0]

    @cached_property
    def target_features(self) -> list[torch.Tensor]:
        """The same of the targets' faces, decoded from their latents; constants."""
        with torch.no_grad():
            return inner_features(self._reader.embedder.encoder, self._target_crops)[0]

    @cached_property
    def generated_halves(self) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, dim) each: embeddings of the faces made of the left and of the right half; see `mirrored_halves`."""
        return tuple(map(self._reader.embedder.encoder, mirrored_halves(self._faces.crops)))

    @cached_property
    def frontality(self) -> torch.Tensor:
        """(batch,), how frontal the faces are; see `frontality`."""
        return frontality(self._faces.landmarks)

    @cached_property
    def generated_patches(self) -> torch.Tensor:
        """(batch, 4, 3, side, side), the eyes, the nose and the mouth; see `face_patches`."""
        return face_patches(self._faces.crops, self._reader.embedder.template)

    @cached_property
    def target_patches(self) -> torch.Tensor:
        """The same of the targets' faces, decoded from their latents; constants."""
        return face_patches(self._target_crops, self._reader.embedder.template)

    @cached_property
    def face_found(self) -> torch.Tensor:
        """(batch,), whether there is a face: in the target, or with a detector in the prediction."""
        of_targets = self._batch.face_found & self._batch.known.flatten()
        return self._batch.comparable(of_targets if self._step.detector is None else self._faces.found)

    @cached_property
    def _reader(self) -> FaceReader:
        return self._step.faces

    @property
    def _bank(self) -> Callable[[torch.Tensor], Bank] | None:
        return self._step.bank

    @property
    def _prior(self) -> torch.Tensor | None:
        return self._step.prior

    @cached_property
    def _encoded(self) -> tuple[list[torch.Tensor], torch.Tensor]:
        return inner_features(self._reader.embedder.encoder, self._faces.crops)

    @cached_property
    def _target_crops(self) -> torch.Tensor:
        batch, faces = self._batch, replace(self._reader, detector=None)
        with torch.no_grad():
            return faces(batch.latents, FacesWanted.of(batch)).crops


class OtherEncoderInputs(FaceInputs):
    """The inputs as another face encoder of the losses sees them.

    The names in `OF_ENCODER` are its own, computed from the predicted pictures and the faces that the main inputs have
    found; all other names are those of the main inputs.

    Args:
        main: Inputs for the main encoder.
        encoder: Stored name of the encoder.
    """

    def __init__(self, main: FaceInputs, encoder: str) -> None:
        self._main, self._own = main, main._step.others[encoder]
        self._step, self._reads = main._step, main._reads
        self._batch = main._batch.compared_by(encoder)
        self.target_embeds, self.reference_embeds = self._batch.target_embeds, self._batch.references()
        self.latents = main.latents

    def __getitem__(self, name: str) -> Any:
        return super().__getitem__(name) if name in OF_ENCODER else self._main[name]

    def _names(self) -> list[str]:
        return self._main._names()

    @cached_property
    def predicted_latents(self) -> torch.Tensor:
        """See `FaceInputs`."""
        return self._main.predicted_latents

    @cached_property
    def _faces(self) -> GeneratedFaces:
        found = self._main._faces
        reader = replace(self._reader, detector=None)
        return reader(self.predicted_latents, FacesWanted(found.landmarks, found.found, self.target_embeds))

    @cached_property
    def _reader(self) -> FaceReader:
        return replace(self._step.faces, embedder=self._own.embedder)

    @property
    def _bank(self) -> Callable[[torch.Tensor], Bank] | None:
        return self._own.bank

    @property
    def _prior(self) -> torch.Tensor | None:
        return self._own.prior

    @cached_property
    def _chosen_prior(self) -> torch.Tensor:
        return self._main._chosen_prior

    @cached_property
    def _older_latents(self) -> torch.Tensor:
        return self._main._older_latents
