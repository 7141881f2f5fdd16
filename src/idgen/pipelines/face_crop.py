"""A face of a picture as the base model draws it, and how it is pasted back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
import torch
from diffusers.utils import BaseOutput
from PIL import Image

from ..data.framing import AlignedFraming, aligned_framing
from ..errors import AdapterError, ImageError
from ..faces import Choice, Face, Pasted, choose_face, face_oval, paste_face
from ..identity import Identity
from ..tiny.usage import Usage, usage_of

if TYPE_CHECKING:
    from .loaded import LoadedAdapter

FaceChoice: TypeAlias = "Choice | list[Choice] | None"
"""One face, as `choose_face` takes it; or a list of these."""

ZOOM = 0.6
"""Scale of the face in the crop of a base model that draws whole pictures: there is room for hair and neck."""


@dataclass
class EditedPicture(BaseOutput):
    """Output of `swap` and `restore`.

    Attributes:
        images: The edited picture, in a list as in diffusers' outputs.
        masks: Where it changed: (height, width) of the picture, 8 bits; where a mask is 0, the pixels are those of the
            picture that was given.
        landmarks: Of the faces that were edited, (faces, 5, 2) in pixels of the edited picture.
    """

    images: list[Image.Image] = field(default_factory=list)
    masks: list[Image.Image] = field(default_factory=list)
    landmarks: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def of(cls, photo: np.ndarray, mask: np.ndarray, landmarks: Sequence[np.ndarray]) -> EditedPicture:
        """The output for a picture, (height, width, 3) uint8, its mask and the landmarks of the edited faces."""
        return cls(
            images=[Image.fromarray(photo)], masks=[Image.fromarray(mask)], landmarks=[np.stack(list(landmarks))]
        )


@dataclass(frozen=True, eq=False)
class FaceCrop:
    """A face cut from a picture, upright and at the size that the base model draws.

    Attributes:
        pixels: (side, side, 3) uint8.
        landmarks: (5, 2), in pixels of the picture.
        template: (5, 2), where the mean face has them in the crop.
        points: (5, 2), where this face has them in the crop.
    """

    pixels: np.ndarray
    landmarks: np.ndarray
    template: np.ndarray
    points: np.ndarray

    @classmethod
    def of(cls, photo: np.ndarray, landmarks: np.ndarray, framing: AlignedFraming) -> FaceCrop:
        """Cut a face with these landmarks from a photo, (height, width, 3) uint8."""
        template, points = framing.template, np.asarray(landmarks, np.float64)
        return cls(framing.cut(photo, (), points), points, template, framing.points(points))

    @property
    def oval(self) -> np.ndarray:
        """(side, side) float32, see `face_oval`."""
        return face_oval(self.points, *self.pixels.shape[:2])

    @property
    def oval_mask(self) -> torch.Tensor:
        """(1, 1, side, side), 1 wherever the oval is not 0."""
        return torch.from_numpy(self.oval > 0).float()[None, None]

    @property
    def window(self) -> np.ndarray:
        """(side, side) float32, 1 in the crop, fading to 0 at its border."""
        side = self.pixels.shape[0]
        edge = np.minimum(np.arange(side), np.arange(side)[::-1]) / (0.12 * side)
        return np.minimum(edge[:, None], edge[None]).clip(0, 1).astype(np.float32)

    @property
    def zoom(self) -> float:
        """How many times the face is larger in the crop than in the picture."""
        sides = (np.linalg.norm(points - points.mean(0)) for points in (self.points, self.landmarks))
        return float(next(sides) / max(next(sides), 1e-6))

    def paste(self, photo: np.ndarray, drawn: np.ndarray) -> Pasted:
        """Blend a drawn crop, (side, side, 3) uint8, into the oval of the face in the photo."""
        return paste_face(photo, drawn, self.oval, self.landmarks, self.template)


def crop_framing(pipeline: Any) -> AlignedFraming:
    """How the faces that a pipeline edits are cut: as its base was trained, or with room around the face."""
    side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    folder = base_folder(pipeline)
    return (aligned_framing(folder) if folder else None) or AlignedFraming(side, zoom=ZOOM, rise=0.0)


def pipeline_usage(pipeline: Any) -> Usage:
    """The settings that suit the base model of a pipeline."""
    folder = base_folder(pipeline)
    return usage_of(folder) if folder else Usage()


def base_folder(pipeline: Any) -> str:
    """The folder that the UNet of a pipeline was loaded from; empty if it is not known."""
    source = pipeline.unet.config.get("_name_or_path")
    return str(Path(source).parent) if source else ""


def chosen_faces(
    loaded: LoadedAdapter, photo: np.ndarray, face: FaceChoice, landmarks: np.ndarray | None = None
) -> list[Face]:
    """The faces of a photo to edit.

    Args:
        loaded: Its face analyzer finds them.
        photo: (height, width, 3) uint8.
        face: One choice, or a list of them.
        landmarks: (5, 2), of the only face, instead of detection.

    Raises:
        NoFaceError, ManyFacesError: See `choose_face`.
        AdapterError: A face is chosen twice.
        ImageError: The landmarks have another shape, or are not finite.
    """
    if landmarks is not None:
        landmarks = np.asarray(landmarks, np.float64)
        if landmarks.shape != (5, 2) or not np.isfinite(landmarks).all():
            raise ImageError(f"landmarks must be finite with shape (5, 2), got shape {landmarks.shape}.")
    faces = loaded.face_analyzer.analyze_batch([photo], [landmarks])[0]
    choices: list[Any] = face if isinstance(face, list) else [face]
    chosen = [choose_face(faces, choice) for choice in choices]
    if len({id(each) for each in chosen}) < len(chosen):
        raise AdapterError(f"face={face} chooses a face twice.")
    return chosen


def identity_of(face: Face) -> Identity:
    """The identity of a face of a photo."""
    return Identity(embeddings=torch.from_numpy(face.embedding)[None], encoder=face.encoder)


def sequence_of(people: Any, count: int, name: str) -> list[Any]:
    """What is given for each of several faces.

    Args:
        people: One person for all faces, or a list of one for each face.
        count: Number of faces.
        name: Name of the argument, for the error message.

    Raises:
        AdapterError: The list has another length.
    """
    several = isinstance(people, Sequence) and not isinstance(people, str | bytes | Identity)
    if count == 1 or not several:
        return [people] * count
    if len(people) != count:
        raise AdapterError(f"Got {len(people)} people in {name} for {count} faces; give one per face, or one for all.")
    return list(people)
