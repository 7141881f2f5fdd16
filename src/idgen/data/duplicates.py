"""Duplicate photos: the same file, and the same picture in another file."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from .clustering import centre_cosines
from .copies import likeness

SAME_PICTURE = 0.965
"""`likeness` above which two crops of a person are one picture; docs/prepare.md has the figures. Embeddings cannot
tell: dlib's changes more when a copy is made half as wide than from one photo of a sitting to the next."""

ALIKE = 0.9
"""Correlation of two thumbnails below which the crops are not compared: no copy lies below."""

_COMPARED = 8  # the most similar ones: in frames of a film, all pictures are similar
_BLOCK = 1024


def same_files(files: np.ndarray, photos: np.ndarray, units: np.ndarray, people: np.ndarray) -> np.ndarray:
    """Faces in duplicate files.

    One photo of each file is kept: the one whose person it resembles most if there are several names, else the first.

    Args:
        files: (n,), number of the file's content.
        photos: (n,), number of the photo.
        units: (n, dim).
        people: (n,), numbers; negative for unnamed faces.

    Returns:
        (n,), whether the face is set aside.
    """
    _, first = np.unique(_pairs(files, people), return_index=True)
    once = np.full(len(files), -1)
    once[first] = people[first]
    cosines = centre_cosines(units, once)
    fit = np.where(cosines < 1, cosines, 0)  # without a name or another photo there is no comparison
    order = np.lexsort((photos, -fit, files))
    _, best = np.unique(files[order], return_index=True)
    kept = np.zeros(photos.max(initial=-1) + 1, bool)
    kept[photos[order][best]] = True
    return ~kept[photos]


def _pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a.astype(np.int64) * (int(b.max(initial=0)) + 2) + b + 1


def same_pictures(
    thumbnails: np.ndarray, people: np.ndarray, sizes: np.ndarray, crop: Callable[[int], np.ndarray]
) -> np.ndarray:
    """Faces whose picture is also in another file of the same person; the largest is kept.

    Args:
        thumbnails: (n, pixels), uint8; see `thumbnail`.
        people: (n,), numbers; negative rows are ignored.
        sizes: (n,), of the faces in their photos.
        crop: Row → the aligned crop, (112, 112, 3) uint8.

    Returns:
        (n,), whether a larger one, or an earlier one of the same size, is the same picture.
    """
    found = np.zeros(len(people), bool)
    order = np.lexsort((-sizes, people))
    order = order[people[order] >= 0]
    for rows in np.split(order, np.flatnonzero(np.diff(people[order])) + 1):
        for row, larger in _alike(thumbnails, rows):
            found[row] = any(likeness(crop(other), crop(row)) >= SAME_PICTURE for other in larger)
    return found


def _alike(thumbnails: np.ndarray, rows: np.ndarray) -> Iterator[tuple[int, list[int]]]:
    """Each row with the few earlier rows that it may be a copy of, the most similar first."""
    pixels = thumbnails[rows].astype(np.float32)
    pixels -= pixels.mean(1, keepdims=True)
    pixels /= np.maximum(np.linalg.norm(pixels, axis=1, keepdims=True), 1e-6)
    for start in range(0, len(rows), _BLOCK):
        cosines = pixels[start : start + _BLOCK] @ pixels[: start + _BLOCK].T
        cosines[np.triu_indices_from(cosines, start)] = -1  # itself and later rows
        for i in np.flatnonzero(cosines.max(1) >= ALIKE):
            nearest = np.argsort(-cosines[i], kind="stable")[:_COMPARED]
            yield int(rows[start + i]), rows[nearest[cosines[i, nearest] >= ALIKE]].tolist()
