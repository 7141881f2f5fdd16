"""Landmark images for InstantID's IdentityNet, identical to those that it was trained on."""

from __future__ import annotations

import math

import numpy as np

from ..errors import IdgenError, MissingDependencyError

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))
"""RGB colours of the left eye, right eye, nose, left and right corner of the mouth."""

NOSE, LIMB_HALF_WIDTH, LIMB_BRIGHTNESS, RADIUS = 2, 4, 0.6, 10
SMALL, LARGE = 256, 512
"""Images with a side below `SMALL` are drawn with sides of at least `LARGE` and downscaled, so that discs do not hide
each other."""


def draw_keypoints(landmarks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Draw landmarks as `draw_kps` in InstantX/InstantID: dimmed lines to the nose, then bright discs.

    Args:
        landmarks: (faces, 5, 2) or (5, 2), pixels (x, y): eyes, nose, corners of the mouth, from left to right in the
            image.
        size: Width and height of the image.

    Returns:
        (height, width, 3) uint8, RGB on black.

    Raises:
        IdgenError: The landmarks have another shape or are not finite.
        MissingDependencyError: OpenCV is not installed. Other libraries draw other pixels.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            "Drawing landmarks requires OpenCV: pip install 'idgen-diffusers[opencv]'"
        ) from error

    faces = np.asarray(landmarks)  # the type is kept, since it changes rounding
    faces = faces[None] if faces.ndim == 2 else faces
    if faces.ndim != 3 or faces.shape[1:] != (5, 2) or not np.isfinite(faces).all():
        raise IdgenError(f"landmarks must be finite with shape (faces, 5, 2), got shape {np.shape(landmarks)}.")
    width, height = size
    if min(size) < SMALL:
        factor = math.ceil(LARGE / min(size))
        large = draw_keypoints(faces * factor, (width * factor, height * factor))
        return cv2.resize(large, size, interpolation=cv2.INTER_AREA)
    canvas = np.zeros((height, width, 3), np.uint8)
    for points in faces:
        for point in (p for p in range(5) if p != NOSE):
            limb = points[[point, NOSE]]
            (x, y), centre = limb[0] - limb[1], limb.mean(0)
            axes = int((x**2 + y**2) ** 0.5 / 2), LIMB_HALF_WIDTH
            angle = int(math.degrees(math.atan2(y, x)))
            polygon = np.asarray(cv2.ellipse2Poly((int(centre[0]), int(centre[1])), axes, angle, 0, 360, 1))
            cv2.fillConvexPoly(canvas, polygon, COLOURS[point])
    canvas = (canvas * LIMB_BRIGHTNESS).astype(np.uint8)
    for points in faces:
        for (x, y), colour in zip(points, COLOURS, strict=True):
            cv2.circle(canvas, (int(x), int(y)), RADIUS, colour, -1)
    return canvas
