"""The drawing of five landmarks that InstantID's IdentityNet reads, pixel for pixel as it was trained."""

from __future__ import annotations

import math

import numpy as np

from ..errors import IdgenError, MissingDependencyError

COLOURS = ((255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255))
"""Of the left eye, the right eye, the nose, the left and the right corner of the mouth, RGB."""

NOSE, LIMB_HALF_WIDTH, LIMB_BRIGHTNESS, RADIUS = 2, 4, 0.6, 10
SMALL, LARGE = 128, 512
"""In pictures with a side below `SMALL` such discs would hide each other: they are drawn with at least `LARGE`, and
averaged."""


def draw_keypoints(landmarks: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """Draw faces as InstantID does (`draw_kps` in InstantX/InstantID): dimmed limbs to the nose, then bright discs.

    Args:
        landmarks: (faces, 5, 2) or (5, 2), pixels (x, y): eyes, nose, corners of the mouth, left first as one looks.
        size: Width and height of the drawing.

    Returns:
        (height, width, 3) uint8, RGB on black.

    Raises:
        IdgenError: The landmarks have another shape or are not finite.
        MissingDependencyError: OpenCV is not installed; no other rasteriser draws the same pixels.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingDependencyError(
            "Drawing landmarks needs OpenCV: pip install 'idgen-diffusers[opencv]'"
        ) from error

    faces = np.asarray(landmarks)  # in the type it comes in: rounding is part of the drawing
    faces = faces[None] if faces.ndim == 2 else faces
    if faces.ndim != 3 or faces.shape[1:] != (5, 2) or not np.isfinite(faces).all():
        raise IdgenError(f"Landmarks must be finite and have the shape (faces, 5, 2), not {np.shape(landmarks)}.")
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
