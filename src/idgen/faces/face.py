"""`Face`: a detected face in a photo, and the choice of one of several."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np

from ..errors import ManyFacesError, NoFaceError

Choice: TypeAlias = "str | int | Sequence[float]"
"""`"largest"`, an index (faces are ordered by size, largest first), or a box (x0, y0, x1, y1) in pixels."""


@dataclass(frozen=True, eq=False)
class Detection:
    """Position of a face.

    Attributes:
        box: (4,), x0, y0, x1, y1 in pixels.
        landmarks: (5, 2), x and y in pixels of the eye on the left of the image, the other eye, the tip of the nose,
            and the left and right corner of the mouth.
        score: Confidence of the detector.
    """

    box: np.ndarray
    landmarks: np.ndarray
    score: float

    @classmethod
    def at(cls, landmarks: np.ndarray) -> Detection:
        """A detection from known landmarks, (5, 2) in pixels, with a square box around them and score 1."""
        low, high = landmarks.min(0), landmarks.max(0)
        middle, reach = (low + high) / 2, float((high - low).max())
        return Detection(np.concatenate([middle - reach, middle + reach]), landmarks, 1.0)

    @property
    def size(self) -> float:
        """Shorter side of the box in pixels."""
        return float(min(self.box[2] - self.box[0], self.box[3] - self.box[1]))

    @property
    def area(self) -> float:
        """Area of the box in square pixels."""
        return float((self.box[2] - self.box[0]) * (self.box[3] - self.box[1]))


@dataclass(frozen=True, eq=False, repr=False)
class Face(Detection):
    """A detected face with the crop and the embedding made from it.

    Attributes:
        crop: (112, 112, 3), uint8 RGB, aligned to the ArcFace template.
        embedding: (dim,), float32, not normalised.
        encoder: Name of the encoder that made the embedding.
    """

    crop: np.ndarray
    embedding: np.ndarray
    encoder: str

    def __repr__(self) -> str:
        x0, y0, x1, y1 = (round(float(v)) for v in self.box)
        return f"Face(box=({x0}, {y0}, {x1}, {y1}), score={self.score:.2f}, encoder='{self.encoder}')"


def choose_face(faces: Sequence[Face], choice: Choice | None = None) -> Face:
    """Choose one face; without a choice there must be exactly one.

    Args:
        faces: Faces of a `FaceAnalyzer`, largest first.
        choice: See `Choice`. A box chooses the face with the largest overlap.

    Raises:
        NoFaceError: `faces` is empty, the index is beyond it, or no face overlaps the box.
        ManyFacesError: There are several faces and `choice` is `None`.
        ValueError: `choice` is not valid.
    """
    if not faces:
        raise NoFaceError("No face was found. Use a photo in which the face is upright, lit and at least 40 px wide.")
    if choice is None:
        if len(faces) > 1:
            raise ManyFacesError(
                f"{len(faces)} faces were found. Choose one with face='largest', an index "
                f"(0 to {len(faces) - 1}, largest first) or a box (x0, y0, x1, y1): {list(faces)}"
            )
        return faces[0]
    if isinstance(choice, str):
        if choice != "largest":
            raise ValueError(f"face must be 'largest', an index or a box, got {choice!r}.")
        return max(faces, key=lambda face: face.area)
    if isinstance(choice, int):
        if not -len(faces) <= choice < len(faces):
            raise NoFaceError(f"face={choice} is out of range; {len(faces)} faces were found.")
        return faces[choice]
    if len(choice) != 4:
        raise ValueError(f"A box must be (x0, y0, x1, y1), got {len(choice)} numbers.")
    best = max(faces, key=lambda face: overlap(face.box, choice))
    if overlap(best.box, choice) == 0:
        raise NoFaceError(f"No face overlaps the box {tuple(choice)}; found: {list(faces)}")
    return best


def overlap(a: Sequence[float] | np.ndarray, b: Sequence[float] | np.ndarray) -> float:
    """Intersection over union of two boxes."""
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    shared = width * height
    return float(shared / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared))
