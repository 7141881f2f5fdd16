"""Photo, faces or points → the drawing that an `IdentityNet` reads, at the size of the picture to be drawn."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import numpy as np
from PIL import Image

from ..errors import ImageError, NoFaceError
from ..faces import Face, Photo, draw_keypoints, load_photo

Size: TypeAlias = "tuple[int, int]"


def landmark_image(
    source: Photo | Face | Sequence[Face] | np.ndarray,
    size: Size | None,
    find_faces: Callable[[Photo], list[Face]],
    native: int,
    step: int,
) -> Image.Image:
    """Draw the landmarks of all faces.

    A photo is fitted into the picture, with all of it seen; faces and points are in pixels of the picture already.

    Args:
        source: A photo, faces, or points (faces, 5, 2).
        size: Width and height of the picture. If not given, a photo keeps its shape at the area of the base model's
            native size.
        find_faces: Of a photo.
        native: Side of the base model's native pictures in pixels.
        step: Both sides are multiples of this where they are not given.

    Raises:
        NoFaceError: The photo shows no face.
        ImageError: It cannot be opened.
    """
    points = _given_points(source)
    if points is not None:
        return Image.fromarray(draw_keypoints(points, size or (native, native)))
    photo = load_photo(source)  # pyright: ignore[reportArgumentType]
    faces = find_faces(photo)
    if not faces:
        raise NoFaceError("No face was found whose landmarks could be drawn.")
    height, width = photo.shape[:2]
    size = size or _fitting_size(width, height, native, step)
    scale = min(size[0] / width, size[1] / height)
    shift = (np.array(size) - scale * np.array([width, height])) / 2
    return Image.fromarray(draw_keypoints(np.stack([face.landmarks for face in faces]) * scale + shift, size))


def _given_points(source: Any) -> np.ndarray | None:
    if isinstance(source, Face):
        return source.landmarks
    if isinstance(source, list | tuple) and source and all(isinstance(face, Face) for face in source):
        return np.stack([face.landmarks for face in source])
    if isinstance(source, list | tuple):
        source = np.asarray(source, dtype=object)
        if source.shape[-2:] != (5, 2):
            raise ImageError("Give one photo, faces, or points of the shape (faces, 5, 2).")
        source = source.astype(np.float64)
    return source if isinstance(source, np.ndarray) and source.shape[-2:] == (5, 2) else None


def _fitting_size(width: int, height: int, native: int, step: int) -> Size:
    """The photo's shape at the native area, in whole steps."""
    scale = (native * native / (width * height)) ** 0.5
    return max(step, round(width * scale / step) * step), max(step, round(height * scale / step) * step)
