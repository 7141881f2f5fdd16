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
    faces = _Faces(landmarks.float(), height, width)
    return torch.stack([faces.mask(part) for part in parts], 1).float()


class _Faces:
    """Faces on a grid of pixels, with the axes along which their parts are ellipses."""

    def __init__(self, points: torch.Tensor, height: int, width: int) -> None:
        self.points = points
        if points.shape[1] == 5:
            self.left, self.right, self.nose, self.corners = points[:, 0], points[:, 1], points[:, 2], points[:, 3:]
        else:
            self.left, self.right = (points[:, POINTS[name]].mean(1) for name in ("left eye", "right eye"))
            self.nose, self.corners = points[:, 30], points[:, [48, 54]]
        self.middle = (self.left + self.right) / 2
        self.down, across = self.corners.mean(1) - self.middle, self.right - self.left
        self.tall = torch.maximum(self.down.norm(dim=1), across.norm(dim=1)).clamp(min=1e-6)
        turn = torch.atan2(across[:, 1], across[:, 0])
        right_and_down = torch.stack([turn.cos(), turn.sin(), -turn.sin(), turn.cos()], 1)
        self.axes = right_and_down.unflatten(1, (2, 2))
        y, x = (torch.arange(side, device=points.device) + 0.5 for side in (height, width))
        self.grid = torch.stack(torch.meshgrid(x, y, indexing="xy"), -1)

    def mask(self, part: FacePart) -> torch.Tensor:
        """(faces, height, width), whether a pixel belongs to the part."""
        if part == "face":
            return self._ellipse(self.middle + self.down / 2, self._sized(FACE))
        if self.points.shape[1] == 5:
            return self._by_five(part)
        if part == "eyes":
            return self._around(POINTS["left eye"]) | self._around(POINTS["right eye"])
        return self._around(POINTS[part])

    def _by_five(self, part: FacePart) -> torch.Tensor:
        if part == "eyes":
            return self._ellipse(self.left, self._sized(EYE)) | self._ellipse(self.right, self._sized(EYE))
        if part == "nose":
            tip = self.nose + self.tall[:, None] * NOSE[1] * self.axes[:, 1]
            half = torch.stack([NOSE[0] * self.tall, ((tip - self.middle).norm(dim=1) / 2).clamp(min=1e-6)], 1)
            return self._ellipse((self.middle + tip) / 2, half)
        wide = (self.corners[:, 1] - self.corners[:, 0]).norm(dim=1) / 2 + MOUTH[0] * self.tall
        return self._ellipse(self.corners.mean(1), torch.stack([wide, MOUTH[1] * self.tall], 1))

    def _around(self, chosen: slice) -> torch.Tensor:
        """The ellipse around some of the points."""
        own = torch.einsum("fij,fnj->fni", self.axes, self.points[:, chosen])
        low, high = own.amin(1), own.amax(1)
        centre = torch.einsum("fji,fj->fi", self.axes, (low + high) / 2)
        return self._ellipse(centre, MARGIN * torch.maximum((high - low) / 2, 0.1 * self.tall[:, None]))

    def _ellipse(self, centre: torch.Tensor, half: torch.Tensor) -> torch.Tensor:
        """Centres (faces, 2) in pixels and half axes (faces, 2) → (faces, height, width)."""
        away = torch.einsum("fij,fhwj->fhwi", self.axes, self.grid - centre[:, None, None])
        return (away / half[:, None, None]).square().sum(-1) <= 1

    def _sized(self, size: tuple[float, float]) -> torch.Tensor:
        """A size in distances from the eyes to the mouth → pixels, (faces, 2)."""
        return self.tall[:, None] * self.points.new_tensor(size)


@cache
def _predictor() -> Any:
    import dlib

    weights = str(dlib_weights("shape_predictor_68_face_landmarks.dat"))
    return dlib.shape_predictor(weights)  # pyright: ignore[reportAttributeAccessIssue]
