"""`Person`: somebody a page knows; and the way there from photos."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from ..errors import DemoError, ManyFacesError, NoFaceError
from ..faces import Face, FaceAnalyzer, FaceEncoder
from ..identity import Identity

MAX_NAME = 40


@dataclass(frozen=True)
class Person:
    """Somebody who can be drawn. No photo is kept.

    Attributes:
        name: On this page.
        identities: One for each adapter that the demo has, or the one that was loaded from a file.
        references: Encoder → (dim,) direction, that results are compared with.
    """

    name: str
    identities: tuple[Identity, ...]
    references: Mapping[str, np.ndarray]

    def for_encoder(self, encoder: str) -> Identity:
        """The identity by this encoder, or else any: an adapter says itself that it cannot read it."""
        return next((i for i in self.identities if i.encoder == encoder), self.identities[0])


def checked_name(name: str | None, taken: Sequence[str]) -> str:
    """The given name, or the first of “Person 1”, “Person 2”, … that nobody has."""
    name = " ".join((name or "").split())
    if len(name) > MAX_NAME:
        raise DemoError(f"A name has at most {MAX_NAME} letters.")
    return name or next(f"Person {number}" for number in count(1) if f"Person {number}" not in taken)


def chosen_faces(found: Sequence[Sequence[Face]], chosen: Sequence[int] | None) -> list[Face]:
    """One face of each photo.

    Args:
        found: Faces of each photo, largest first.
        chosen: Index of the face in each photo, -1 where nothing is chosen; empty if every photo shows one face.

    Raises:
        NoFaceError: A photo shows none, or not the chosen one.
        ManyFacesError: A photo shows several, and none is chosen.
        DemoError: Not as many choices as photos.
    """
    indices = list(chosen or [-1] * len(found))
    if len(indices) != len(found) or not all(isinstance(i, int) and not isinstance(i, bool) for i in indices):
        raise DemoError(f"Faces are chosen by a whole number for each photo: {len(found)} of them, not {indices}.")
    faces = []
    for number, (of_photo, index) in enumerate(zip(found, indices, strict=True), 1):
        where = f"photo {number}" if len(found) > 1 else "the photo"
        if not of_photo:
            raise NoFaceError(f"No face was found in {where}. Use one that is upright, lit and at least 40 px wide.")
        if index < 0 and len(of_photo) > 1:
            raise ManyFacesError(f"{len(of_photo)} faces were found in {where}: click the one that is meant.")
        if index >= len(of_photo):
            raise NoFaceError(f"There is no face {index} in {where}; {len(of_photo)} were found.")
        faces.append(of_photo[max(index, 0)])
    return faces


def enroll_person(
    pipe: Any,
    photos: Sequence[np.ndarray],
    faces: Sequence[Face],
    name: str,
    encoders: Mapping[str, FaceEncoder],
) -> Person:
    """Photos of a person → `Person`, by the encoder of every adapter and by those that judge.

    Args:
        pipe: With adapters loaded.
        photos: RGB.
        faces: The person's in each of them.
        name: Of the person.
        encoders: By name.
    """
    identities: dict[tuple[str, str], Identity] = {}
    for adapter_name, adapter in pipe.id_adapters.items():
        reads = adapter.config["encoder"], adapter.config["projection"]
        if reads not in identities:
            # by box, not by number: an adapter may come with another detector, which counts otherwise
            single = [
                pipe.encode_identity(photo, face=tuple(face.box), adapter_name=adapter_name)
                for photo, face in zip(photos, faces, strict=True)
            ]
            identities[reads] = Identity.mean(single, name=name)
    references = {encoder: _direction(encoders[encoder], photos, faces) for encoder in encoders}
    return Person(name, tuple(identities.values()), references)


def loaded_person(identity: Identity, name: str) -> Person:
    """From a file: no more is known than it holds."""
    return Person(name, (identity,), {identity.encoder: identity.embedding(normalised=True).numpy()})


def find_faces(analyzer: FaceAnalyzer, photos: Sequence[np.ndarray]) -> list[list[Face]]:
    """Faces of each photo, largest first.

    Raises:
        NoFaceError: None of them shows any.
    """
    found = analyzer.analyze_batch(photos)
    if not any(found):
        raise NoFaceError("No face was found. Use a photo in which it is upright, lit and at least 40 px wide.")
    return found


def _direction(encoder: FaceEncoder, photos: Sequence[np.ndarray], faces: Sequence[Face]) -> np.ndarray:
    crops = [encoder.crop(photo, face.landmarks) for photo, face in zip(photos, faces, strict=True)]
    embeddings = encoder.embed(np.stack(crops)).astype(np.float64)
    mean = (embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True)).mean(0)
    return mean / np.linalg.norm(mean)
