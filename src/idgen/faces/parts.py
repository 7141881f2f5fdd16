"""Masks of the eyes, the nose and the mouth, from landmarks."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
import torch

from ..errors import ImageError
from .detectors import dlib_weights
from .face import Detection
from .part_names import PARTS, FacePart

POINTS = {"left eye": slice(36, 42), "right eye": slice(42, 48), "nose": slice(27, 36), "mouth": slice(48, 68)}
"""The 68 points of iBUG 300-W; left and right are those of the picture."""

MARGIN = 1.4
"""Half axes of the ellipse around the points of a part, in half of their extent."""

FACE = (0.95, 1.18)
"""Half of the width and the height of a face, in distances from the eyes to the mouth; see `face_oval`."""

EYE, NOSE, MOUTH = (0.34, 0.22), (0.3, 0.2), (0.18, 0.24)
"""Around five points, in distances from the eyes to the mouth: half of the width and the height of an eye; half of the
width of the nose, and how far it reaches below its tip; how far the mouth reaches beyond its corners, and half of its
height."""


def landmarks68(image: np.ndarray, face: Detection) -> np.ndarray:
    """The 68 landmarks of a face by dlib's shape predictor, which `face-recognition-models` ships.

    The predictor was trained on iBUG 300-W, whose terms exclude commercial use.

    Args:
        image: (height, width, 3) uint8 RGB.
        face: Where the face is.

    Returns:
        (68, 2), pixels (x, y).

    Raises:
        MissingDependencyError: The weights are not installed.
    """
    import dlib

    points = face.landmarks
    middle = (points[:2].mean(0) + points[3:].mean(0)) / 2
    reach = 1.15 * max(np.linalg.norm(points[:2].mean(0) - points[3:].mean(0)), np.linalg.norm(points[1] - points[0]))
    x0, y0, x1, y1 = (round(float(v)) for v in (*(middle - reach), *(middle + reach)))
    box = dlib.rectangle(x0, y0, x1, y1)  # pyright: ignore[reportAttributeAccessIssue]
    return np.array([(p.x, p.y) for p in _predictor()(image, box).parts()], np.float64)


def part_masks(
    landmarks: torch.Tensor, height: int, width: int, parts: Sequence[FacePart] = PARTS[1:]
) -> torch.Tensor:
    """Ellipses around parts of faces.

    Args:
        landmarks: (faces, 5, 2) as in `Detection.landmarks`, or (faces, 68, 2) as in `landmarks68`, which are more
            exact; in pixels of the masks.
        height: Height of the masks.
        width: Width of the masks.
        parts: One mask for each.

    Returns:
        (faces, parts, height, width), 1 inside.

    Raises:
        ImageError: The landmarks have another shape.
    """
    if landmarks.ndim != 3 or landmarks.shape[1:] not in ((5, 2), (68, 2)):
        raise ImageError(f"landmarks must have shape (faces, 5, 2) or (faces, 68, 2), got {tuple(landmarks.shape)}.")
    points = landmarks.float()
    if points.shape[1] == 5:
        left, right, nose, corners = points[:, 0], points[:, 1], points[:, 2], points[:, 3:]
    else:
        left, right = (points[:, POINTS[name]].mean(1) for name in ("left eye", "right eye"))
        nose, corners = points[:, 30], points[:, [48, 54]]
    across = right - left
    down = corners.mean(1) - (left + right) / 2
    tall = torch.maximum(down.norm(dim=1), across.norm(dim=1)).clamp(min=1e-6)
    turn = torch.atan2(across[:, 1], across[:, 0])
    axes = torch.stack([turn.cos(), turn.sin(), -turn.sin(), turn.cos()], 1).unflatten(1, (2, 2))  # right and down
    y, x = torch.arange(height, device=points.device) + 0.5, torch.arange(width, device=points.device) + 0.5
    grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)

    def ellipse(centre: torch.Tensor, half: torch.Tensor) -> torch.Tensor:
        """Centres (faces, 2) in pixels and half axes (faces, 2) → (faces, height, width)."""
        away = torch.einsum("fij,fhwj->fhwi", axes, grid - centre[:, None, None])
        return (away / half[:, None, None]).square().sum(-1) <= 1

    def around(chosen: torch.Tensor) -> torch.Tensor:
        """The ellipse around points, (faces, n, 2)."""
        own = torch.einsum("fij,fnj->fni", axes, chosen)
        low, high = own.amin(1), own.amax(1)
        centre = torch.einsum("fji,fj->fi", axes, (low + high) / 2)
        return ellipse(centre, MARGIN * torch.maximum((high - low) / 2, 0.1 * tall[:, None]))

    def sized(size: tuple[float, float]) -> torch.Tensor:
        return tall[:, None] * points.new_tensor(size)

    def mask(part: FacePart) -> torch.Tensor:
        middle = (left + right) / 2
        if part == "face":
            return ellipse(middle + down / 2, sized(FACE))
        if points.shape[1] == 68:
            if part != "eyes":
                return around(points[:, POINTS[part]])
            return around(points[:, POINTS["left eye"]]) | around(points[:, POINTS["right eye"]])
        if part == "eyes":
            return ellipse(left, sized(EYE)) | ellipse(right, sized(EYE))
        if part == "nose":
            tip = nose + tall[:, None] * NOSE[1] * axes[:, 1]
            half = torch.stack([NOSE[0] * tall, ((tip - middle).norm(dim=1) / 2).clamp(min=1e-6)], 1)
            return ellipse((middle + tip) / 2, half)
        wide = (corners[:, 1] - corners[:, 0]).norm(dim=1) / 2 + MOUTH[0] * tall
        return ellipse(corners.mean(1), torch.stack([wide, MOUTH[1] * tall], 1))

    return torch.stack([mask(part) for part in parts], 1).float()


@cache
def _predictor() -> Any:
    import dlib

    weights = str(dlib_weights("shape_predictor_68_face_landmarks.dat"))
    return dlib.shape_predictor(weights)  # pyright: ignore[reportAttributeAccessIssue]
