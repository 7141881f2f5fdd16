"""The photos of a shard, read in batches that fit into memory, with the reasons why some cannot be used."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from ..errors import ImageError
from ..faces import load_photo
from ..faces.image_file import MAX_BYTES, image_format
from .metadata import UnclearMetadataError, flag, points
from .scrub import Scrubber
from .source import Source

BATCH_PHOTOS = 32
BATCH_PIXELS = 64_000_000  # a batch of huge photos would not fit into memory


@dataclass(frozen=True)
class ReadPhoto:
    """A photo of a shard's input as it was read.

    Attributes:
        source: Where it comes from.
        key: Name of its members in the tar.
        metadata: What the source tells of it.
        data: Bytes of the file.
        pixels: (height, width, 3) uint8 RGB, or `None` if it cannot be used.
        suffix: Suffix of the file's format.
        dropped: Why it cannot be used.
        landmarks: (5, 2), given ones.
    """

    source: Source
    key: str
    metadata: dict[str, Any]
    data: bytes = b""
    pixels: np.ndarray | None = None
    suffix: str | None = None
    dropped: str | None = None
    landmarks: np.ndarray | None = None


def read_photos(sources: Sequence[Source], name: str) -> Iterator[list[ReadPhoto]]:
    """Read photos in batches.

    Args:
        sources: The photos, in order.
        name: Name of the shard, with which the keys begin.
    """
    batch: list[ReadPhoto] = []
    pixels = 0
    for i, source in enumerate(sources):
        photo = read_photo(source, f"{name}{i:06d}")
        size = 0 if photo.pixels is None else photo.pixels.shape[0] * photo.pixels.shape[1]
        if batch and (len(batch) == BATCH_PHOTOS or pixels + size > BATCH_PIXELS):
            yield batch
            batch, pixels = [], 0
        batch.append(photo)
        pixels += size
    if batch:
        yield batch


def read_photo(source: Source, key: str) -> ReadPhoto:
    """Read one photo; `dropped` says why it cannot be used."""
    told: dict[str, Any] = source.told()
    given, said = told.pop("landmarks"), told.pop("reference")
    photo = ReadPhoto(source, key, told | {"reference": None})
    if source.photo is None:
        return replace(photo, dropped=source.missing)
    try:
        landmarks = points(given)
        photo = replace(photo, metadata=told | {"reference": flag(said)})
    except UnclearMetadataError as error:
        return replace(photo, dropped=str(error))
    try:
        photo = replace(photo, data=source.photo.read(MAX_BYTES + 1))
    except Exception:  # stores and archives raise many types
        return replace(photo, dropped="missing")
    if len(photo.data) > MAX_BYTES:
        return replace(photo, data=b"", dropped="too-large")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # damaged files are in the report
            pixels = load_photo(photo.data)
    except ImageError as error:
        return replace(photo, dropped=error.reason)
    form = image_format(photo.data)
    found = None if landmarks is None else np.array(landmarks).reshape(5, 2)
    return replace(photo, pixels=pixels, suffix=form and form.suffix, landmarks=found)


def scrubbed(photo: ReadPhoto, scrubber: Scrubber, counts: Counter[str]) -> ReadPhoto:
    """The photo without people's data in its caption; adds to the counts what was removed."""
    if not (caption := photo.metadata.get("caption")):
        return photo
    text, removed = scrubber(caption, photo.metadata.get("label"))
    counts.update(removed)
    return replace(photo, metadata=photo.metadata | {"caption": text or None})
