"""Enrolment: photos of a person → `Identity`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace

import torch

from .errors import FaceError
from .faces import Choice, FaceAnalyzer, ImageEncoder, Photo, load_photo
from .identity import Identity


def enroll(
    photos: Photo | Sequence[Photo],
    analyzer: FaceAnalyzer | None = None,
    *,
    face: Choice | None = None,
    weights: Sequence[float] | None = None,
    image_encoder: ImageEncoder | None = None,
    name: str | None = None,
) -> Identity:
    """Find the person's face in each photo and embed it.

    Args:
        photos: One or several photos of the same person; see `load_photo`.
        analyzer: Finds and embeds faces; `FaceAnalyzer()` if not given.
        face: The face to use if a photo shows several: `"largest"`, an index (largest first) or a box.
        weights: Weight of each photo in the mean; equal if not given.
        image_encoder: Image encoder whose features of each photo are stored too, for adapters that read them.
        name: Name of the person.

    Raises:
        ImageError: A photo cannot be opened.
        NoFaceError: A photo shows no face; the error says which one.
        ManyFacesError: A photo shows several faces and `face` is not given.
        IdentityError: The number of weights is not the number of photos, or a weight is negative.
    """
    analyzer = analyzer or FaceAnalyzer()
    several = isinstance(photos, Sequence) and not isinstance(photos, str | bytes)
    listed: Sequence[Photo] = photos if several else [photos]  # pyright: ignore[reportAssignmentType]
    names = [_name(photo, number, len(listed)) for number, photo in enumerate(listed, 1)]
    single = [_enroll_one(*each, analyzer, face, image_encoder) for each in zip(listed, names, strict=True)]
    return Identity.mean(single, weights, name)


def _name(photo: Photo, number: int, count: int) -> str:
    """The name of a photo in errors: its path, and its number if there are several."""
    path = f"'{os.fspath(photo)}'" if isinstance(photo, str | os.PathLike) else ""
    return ", ".join(part for part in (f"photo {number} of {count}" if count > 1 else "", path) if part)


def _enroll_one(
    photo: Photo, name: str, analyzer: FaceAnalyzer, choice: Choice | None, encoder: ImageEncoder | None
) -> Identity:
    image = load_photo(photo)
    try:
        face = analyzer.find(image, choice)
    except FaceError as error:
        raise (type(error)(f"In {name}: {error}") if name else error) from error
    person = Identity(embeddings=torch.from_numpy(face.embedding)[None], encoder=face.encoder)
    if encoder is None:
        return person
    return replace(person, features=encoder.encode(image, face.landmarks)[None], image_encoder=encoder.name)
