"""Photos that are there twice: the same file, and the same picture in another file."""

from __future__ import annotations

import numpy as np

from .people import centre_cosines

SAME_PICTURE = 0.98
"""Correlation of the thumbnails of two aligned faces of a person above which they are one picture.

Embeddings cannot tell: dlib's moves more when a copy is made half as wide than from one photo to the next. Measured on
LFW (docs/prepare.md): 37 of 249,934 pairs of a person's photos lie above, most of them true copies, and 97 to 100 % of
copies that were recompressed, resized or cropped a little."""


def same_files(files: np.ndarray, photos: np.ndarray, units: np.ndarray, people: np.ndarray) -> np.ndarray:
    """Faces of photos whose very file is there another time.

    One photo of each file stays: the one whose name fits best, where the same file lies under several, else the first.

    Args:
        files: (n,), number of the file's content.
        photos: (n,), number of the photo.
        units: (n, dim).
        people: (n,), numbers; negative where nobody is named.

    Returns:
        (n,), whether the face is left out.
    """
    _, first = np.unique(_pairs(files, people), return_index=True)
    once = np.full(len(files), -1)
    once[first] = people[first]
    cosines = centre_cosines(units, once)
    fit = np.where(cosines < 1, cosines, 0)  # whoever has no name or no other photo cannot be compared
    order = np.lexsort((photos, -fit, files))
    _, best = np.unique(files[order], return_index=True)
    kept = np.zeros(photos.max(initial=-1) + 1, bool)
    kept[photos[order][best]] = True
    return ~kept[photos]


def _pairs(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return a.astype(np.int64) * (int(b.max(initial=0)) + 2) + b + 1


def same_pictures(
    thumbnails: np.ndarray, people: np.ndarray, sizes: np.ndarray, threshold: float = SAME_PICTURE
) -> np.ndarray:
    """Faces whose picture is there in another file of the same person; the largest stays.

    Args:
        thumbnails: (n, pixels), uint8; see `thumbnail`.
        people: (n,), numbers; negative rows are left alone.
        sizes: (n,), of the faces in their photos.
        threshold: Correlation.

    Returns:
        (n,), whether a larger one, or an earlier one of the same size, is the same picture.
    """
    found = np.zeros(len(people), bool)
    order = np.lexsort((-sizes, people))
    order = order[people[order] >= 0]
    for rows in np.split(order, np.flatnonzero(np.diff(people[order])) + 1):
        if len(rows) > 1:
            pixels = thumbnails[rows].astype(np.float32)
            pixels -= pixels.mean(1, keepdims=True)
            pixels /= np.maximum(np.linalg.norm(pixels, axis=1, keepdims=True), 1e-6)
            for start in range(1, len(rows), 1024):
                part = pixels[start : start + 1024]
                before = np.tri(len(part), start + len(part), start - 1, dtype=bool)
                found[rows[start : start + 1024]] = ((part @ pixels[: start + len(part)].T >= threshold) & before).any(
                    1
                )
    return found
