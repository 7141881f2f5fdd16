"""Changes that an edit makes to a face, in plain numpy: landmarks, angles, pixels."""

from __future__ import annotations

import numpy as np


def landmark_error(after: np.ndarray, before: np.ndarray) -> float:
    """Mean distance of landmarks, (5, 2) in pixels, in distances between the eyes of `before`."""
    between_eyes = float(np.linalg.norm(before[1] - before[0]))
    return float(np.linalg.norm(after - before, axis=-1).mean()) / max(between_eyes, 1e-6)


def pose_error(after: np.ndarray, before: np.ndarray) -> float:
    """Mean absolute difference of yaw, pitch and roll, (3,) in degrees."""
    turn = np.abs(np.asarray(after) - before) % 360
    return float(np.minimum(turn, 360 - turn).mean())


def psnr(image: np.ndarray, truth: np.ndarray, mask: np.ndarray | None = None) -> float:
    """Peak signal-to-noise ratio in dB of 8-bit images, (height, width, 3); infinite for equal ones.

    Args:
        image: The image.
        truth: What it should be.
        mask: (height, width), true where pixels are compared; all of them if not given.
    """
    squares = (image.astype(np.float64) - truth) ** 2
    error = float(squares.mean() if mask is None else squares[mask].mean()) if mask is None or mask.any() else 0.0
    return float("inf") if error == 0 else 10 * float(np.log10(255**2 / error))
