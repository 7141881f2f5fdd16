"""Quality of a face without networks: sharpness, yaw and roll, their groups, and a thumbnail."""

from __future__ import annotations

from itertools import pairwise

import numpy as np

POSES = (15.0, 30.0)
"""Yaw in degrees at which a group of poses ends."""

SIZES = (64, 128, 256)
"""Width of a face in pixels at which a group of sizes begins."""


def sharpness(crop: np.ndarray) -> float:
    """Variance of the Laplacian (Pech-Pacheco 2000) of an aligned crop.

    Args:
        crop: (height, width, 3), uint8. All crops have the same size, so values are comparable.
    """
    grey = crop.astype(np.float64) @ (0.299, 0.587, 0.114)
    inner = grey[1:-1, 1:-1]
    laplacian = grey[:-2, 1:-1] + grey[2:, 1:-1] + grey[1:-1, :-2] + grey[1:-1, 2:] - 4 * inner
    return float(laplacian.var())


def thumbnail(crop: np.ndarray) -> np.ndarray:
    """Mean grey values of 8 × 8 blocks of an aligned crop, which are nearly equal for copies of a picture.

    Args:
        crop: (112, 112, 3), uint8.

    Returns:
        (64,), uint8.
    """
    side = len(crop) // 8
    grey = crop.astype(np.float64) @ (0.299, 0.587, 0.114)
    return grey.reshape(8, side, 8, side).mean((1, 3)).round().astype(np.uint8).ravel()


def pose(landmarks: np.ndarray) -> tuple[float, float]:
    """Yaw and roll in degrees, from five landmarks.

    Yaw is estimated from the distance of the tip of the nose to the centre between the eyes, on a sphere whose outline
    the eyes reach at 90°. It is an order of magnitude, not a measurement. Pitch would need the mouth, which dlib does
    not detect.

    Args:
        landmarks: (5, 2), in pixels, in the order of `Detection.landmarks`.
    """
    left, right, nose = landmarks[:3]
    axis = right - left
    length = max(float(np.hypot(*axis)), 1e-6)
    offset = float((nose - (left + right) / 2) @ axis) / length**2
    yaw = np.degrees(np.arcsin(np.clip(2 * offset, -1, 1)))
    return float(yaw), float(np.degrees(np.arctan2(axis[1], axis[0])))


def pose_group(yaw: float) -> str:
    """The group of a face by its yaw in degrees, to either side; see `pose`."""
    if abs(yaw) < POSES[0]:
        return f"under {POSES[0]:g}°"
    return f"{POSES[0]:g} to {POSES[1]:g}°" if abs(yaw) < POSES[1] else f"{POSES[1]:g}° and more"


def size_group(width: float) -> str:
    """The group of a face by its width in pixels."""
    if width < SIZES[0]:
        return f"under {SIZES[0]} px"
    for low, high in pairwise(SIZES):
        if width < high:
            return f"{low} to {high - 1} px"
    return f"{SIZES[-1]} px and more"
