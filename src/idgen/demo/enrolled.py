"""`EnrolledPerson`: a person that a page can generate, enrolled from photos or loaded from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from ..adapter import IdentityAdapter
from ..errors import DemoError, ManyFacesError, NoFaceError
from ..faces import Face, FaceEncoder
from ..identity import Identity

MAX_NAME = 40


@dataclass(frozen=True)
class EnrolledPerson:
    """A person that can be generated. No photo is kept.

    Attributes:
        name: Name on this page.
        identities: One identity for each encoder that the adapters read, or the one that was loaded from a file.
        references: Encoder name → (dim,) reference embedding of unit length, which results are compared with.
    """

    name: str
    identities: tuple[Identity, ...]
    references: Mapping[str, np.ndarray]

    def for_adapter(self, adapter: IdentityAdapter) -> Identity:
        """The identity that an adapter reads, or else the first one, which it refuses with an error of its own."""
        fitting = [i for i in self.identities if i.encoder == adapter.config["encoder"]]
        with_features = [i for i in fitting if i.image_encoder == adapter.config["image_encoder"]]
        return (with_features or fitting or list(self.identities))[0]


def checked_name(name: str | None, taken: Sequence[str]) -> str:
    """The given name without superfluous spaces, or the first free one of “Person 1”, “Person 2”, …

    Raises:
        DemoError: The name is too long.
    """
    name = " ".join((name or "").split())
    if len(name) > MAX_NAME:
        raise DemoError(f"A name can have at most {MAX_NAME} letters.")
    return name or next(f"Person {number}" for number in count(1) if f"Person {number}" not in taken)


def chosen_faces(found: Sequence[Sequence[Face]], chosen: Sequence[int] | None) -> list[Face]:
    """Choose one face of each photo.

    Args:
        found: Faces of each photo, largest first.
        chosen: Index of the face in each photo, or -1 for its only face; empty if every photo shows one face.

    Raises:
        NoFaceError: A photo shows no face, or there is no face of this index.
        ManyFacesError: A photo shows several faces and none is chosen.
        DemoError: There is not one whole number for each photo.
    """
    indices = list(chosen or [-1] * len(found))
    if len(indices) != len(found) or not all(isinstance(i, int) and not isinstance(i, bool) for i in indices):
        raise DemoError(f"Give one face index (a whole number) for each of the {len(found)} photos, not {indices}.")
    faces = []
    for number, (of_photo, index) in enumerate(zip(found, indices, strict=True), 1):
        where = f"photo {number}" if len(found) > 1 else "the photo"
        if not of_photo:
            raise NoFaceError(
                f"No face was found in {where}. Use a photo with an upright, well-lit face at least 40 px wide."
            )
        if index < 0 and len(of_photo) > 1:
            raise ManyFacesError(f"{len(of_photo)} faces were found in {where}. Click the face to use.")
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
) -> EnrolledPerson:
    """Embed the photos of a person with the encoder of every adapter of people and with every evaluation encoder.

    Args:
        pipe: A pipeline with adapters.
        photos: (height, width, 3) RGB each.
        faces: The person's face in each photo.
        name: Name of the person.
        encoders: Encoders that results are compared with, by name.
    """
    identities: dict[tuple[str, str | None, int | None], Identity] = {}
    for adapter_name, adapter in pipe.id_adapters.items():
        if adapter.reads_expression:
            continue
        reads = adapter.config["encoder"], adapter.config["image_encoder"], adapter.feature_dim
        if reads not in identities:
            # A face is named by its box: an adapter may use another detector, which numbers faces differently.
            single = [
                pipe.encode_identity(photo, face=tuple(face.box), adapter_name=adapter_name)
                for photo, face in zip(photos, faces, strict=True)
            ]
            identities[reads] = Identity.mean(single, name=name)
    references = {encoder: _mean_direction(encoders[encoder], photos, faces) for encoder in encoders}
    return EnrolledPerson(name, tuple(identities.values()), references)


def person_from_file(identity: Identity, name: str) -> EnrolledPerson:
    """A person from an identity file, which holds the embeddings of one encoder."""
    return EnrolledPerson(name, (identity,), {identity.encoder: identity.embedding(normalised=True).numpy()})


def _mean_direction(encoder: FaceEncoder, photos: Sequence[np.ndarray], faces: Sequence[Face]) -> np.ndarray:
    crops = [encoder.crop(photo, face.landmarks) for photo, face in zip(photos, faces, strict=True)]
    embeddings = encoder.embed(np.stack(crops)).astype(np.float64)
    mean = (embeddings / np.linalg.norm(embeddings, axis=-1, keepdims=True)).mean(0)
    return mean / np.linalg.norm(mean)
