"""The photos of one person: the faces in them, the training pictures, and the photo that is held out."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image, ImageEnhance

from ...data.framing import Framing
from ...data.members import hidden, is_picture
from ...errors import FaceError, ImageError, TrainingError
from ...faces import Choice, Face, FaceAnalyzer, FaceEncoder, load_photo
from ...identity import Identity
from ...provenance import IdentityBlocklist

ENOUGH = 3
"""With this many photos, one of them is held out."""

VERSIONS = 8
"""Training pictures of each photo: different light and colour, every second one mirrored."""

JITTER = 0.15
"""Largest change of brightness, contrast and colour in them (StableIdentity, arXiv 2401.15975, section 4.1)."""


class PersonPhoto(NamedTuple):
    """A photo with its face."""

    image: np.ndarray
    face: Face


class TrainingPictures(NamedTuple):
    """Pictures to train on.

    Attributes:
        pixels: (n, height, width, 3) uint8.
        landmarks: (n, 5, 2), in pixels of the pictures.
        photos: (n,), index of the photo of each.
    """

    pixels: np.ndarray
    landmarks: np.ndarray
    photos: np.ndarray


@dataclass(frozen=True, eq=False, kw_only=True)
class PersonPhotos:
    """The photos of a person.

    Attributes:
        train: Photos to train on.
        held_out: Photo to measure with; the training photos, if there are too few.
        identity: The person by the training photos.
        key: Identifies the photos, twelve hexadecimal digits.
    """

    train: Sequence[PersonPhoto]
    held_out: Sequence[PersonPhoto]
    identity: Identity
    key: str

    @property
    def is_held_out(self) -> bool:
        """Whether the result is measured on a photo that is not trained on."""
        return self.held_out[0] is not self.train[0]

    def measured_by(self, encoder: FaceEncoder) -> Identity:
        """The identity of the held-out photos by a face encoder."""
        crops = np.stack([encoder.crop(photo.image, photo.face.landmarks) for photo in self.held_out])
        return Identity(embeddings=torch.from_numpy(encoder.embed(crops)), encoder=encoder.name)

    def pictures(self, framing: Framing, seed: int) -> TrainingPictures:
        """The training pictures: several versions of each photo, the first one unchanged."""
        random = np.random.default_rng(seed)
        pixels, landmarks, photos = [], [], []
        for number, photo in enumerate(self.train):
            box = photo.face.box.tolist()
            place = framing.place(photo.image.shape[1], photo.image.shape[0], box, photo.face.landmarks)
            picture = framing.cut(photo.image, box, photo.face.landmarks)
            for version in range(VERSIONS):
                changed, mirrored = _jittered(picture, random) if version else picture, bool(version % 2)
                pixels.append(changed[:, ::-1] if mirrored else changed)
                landmarks.append(place.mirrored() if mirrored else place.landmarks)
                photos.append(number)
        return TrainingPictures(np.stack(pixels), np.stack(landmarks).astype(np.float32), np.array(photos))


def read_photos(
    place: Path, analyzer: FaceAnalyzer, choice: Choice | None = None, blocklist: Path | None = None
) -> PersonPhotos:
    """Find the person's face in each photo.

    Args:
        place: A folder of photos, or one photo.
        analyzer: Finds and embeds the faces.
        choice: The face to use if a photo shows several; see `choose_face`.
        blocklist: Blocklist that the person must not be on.

    Raises:
        TrainingError: The folder has no photo.
        ImageError: A photo cannot be opened.
        NoFaceError, ManyFacesError: A photo does not show one face; the error names it.
        BlockedIdentityError: The person is on the blocklist.
    """
    listed = None if blocklist is None else IdentityBlocklist.load(blocklist)
    files = _files(place)
    photos = [_read(file, analyzer, choice) for file in files]
    hold = len(photos) >= ENOUGH
    train = photos[:-1] if hold else photos
    single = [Identity(embeddings=torch.from_numpy(p.face.embedding)[None], encoder=p.face.encoder) for p in photos]
    everyone = Identity.mean(single)  # warns of a photo that shows somebody else
    if listed is not None:
        listed.check(everyone)
    digest = hashlib.sha256(b"".join(photo.image.tobytes() for photo in photos))
    return PersonPhotos(
        train=train,
        held_out=photos[-1:] if hold else photos,
        identity=Identity(embeddings=everyone.embeddings[: len(train)], encoder=everyone.encoder),
        key=digest.hexdigest()[:12],
    )


def _files(place: Path) -> list[Path]:
    if not place.is_dir():
        return [place]
    found = sorted(file for file in place.iterdir() if is_picture(file.name) and not hidden([file.name]))
    if not found:
        raise TrainingError(f"The folder '{place}' has no photos.")
    return found


def _read(file: Path, analyzer: FaceAnalyzer, choice: Choice | None) -> PersonPhoto:
    image = load_photo(file)
    try:
        return PersonPhoto(image, analyzer.find(image, choice))
    except (FaceError, ImageError) as error:
        raise type(error)(f"In '{file}': {error}") from error


def _jittered(picture: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """A picture with other brightness, contrast and colour."""
    image = Image.fromarray(picture)
    for kind in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        image = kind(image).enhance(float(random.uniform(1 - JITTER, 1 + JITTER)))
    return np.asarray(image)
