"""Photo, faces or points → the landmark image that an `IdentityNet` reads."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

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

    The landmarks of a photo are scaled so that the whole photo fits into the image. Faces and points are in pixels of
    the image.

    Args:
        source: A photo, faces, or points (faces, 5, 2).
        size: Width and height of the image. If not given, it has the aspect ratio of the photo and the area of the
            base model's native size.
        find_faces: Finds the faces of a photo.
        native: Side length of the base model's native images in pixels.
        step: Width and height are multiples of this if `size` is not given.

    Raises:
        NoFaceError: No face was found in the photo.
        ImageError: The photo cannot be opened, or the points have another shape.
    """
    points = _given_points(source)
    if points is not None:
        return Image.fromarray(draw_keypoints(points, size or (native, native)))
    photo = load_photo(source)  # pyright: ignore[reportArgumentType]
    faces = find_faces(photo)
    if not faces:
        raise NoFaceError("No face was found in the photo.")
    height, width = photo.shape[:2]
    size = size or _fitting_size(width, height, native, step)
    scale = min(size[0] / width, size[1] / height)
    shift = (np.array(size) - scale * np.array([width, height])) / 2
    return Image.fromarray(draw_keypoints(np.stack([face.landmarks for face in faces]) * scale + shift, size))


def _given_points(source: object) -> np.ndarray | None:
    if isinstance(source, Face):
        return source.landmarks
    if isinstance(source, list | tuple) and source and all(isinstance(face, Face) for face in source):
        return np.stack([face.landmarks for face in source])
    if isinstance(source, list | tuple):
        source = np.asarray(source, dtype=object)
        if source.shape[-2:] != (5, 2):
            raise ImageError(
                f"source must be a photo, faces, or points of shape (faces, 5, 2), got shape {source.shape}."
            )
        source = source.astype(np.float64)
    return source if isinstance(source, np.ndarray) and source.shape[-2:] == (5, 2) else None


def _fitting_size(width: int, height: int, native: int, step: int) -> Size:
    """The aspect ratio of the photo at the native area, in multiples of `step`."""
    scale = (native * native / (width * height)) ** 0.5
    return max(step, round(width * scale / step) * step), max(step, round(height * scale / step) * step)
