"""`ExpressionEncoder`: the expression of a face as 13 measures of its landmarks."""

from __future__ import annotations

import numpy as np
import torch

from .align import DLIB_TEMPLATE, align_face
from .face import Detection
from .parts import landmarks68

EXPRESSION = "expression-v1"
"""Name of the encoder. An adapter that reads it is conditioned on an expression, not on a person."""

MEASURES = (
    *("left inner brow", "left outer brow", "left eye opening", "left mouth corner", "left mouth width"),
    *("right inner brow", "right outer brow", "right eye opening", "right mouth corner", "right mouth width"),
    *("upper lip", "mouth opening", "lower lip"),
)
"""Left and right are those of the picture. Brows, corners and lips are heights: above the eyes, above the middle of
the mouth, and below the nose."""

_SIDE = ((0.3549, 0.1256), (0.3818, 0.0973), (0.1434, 0.0395), (0.0871, 0.0995), (0.4520, 0.1024))
_MIDDLE = ((0.3152, 0.0853), (0.1501, 0.1400), (0.7581, 0.1893))
_MEAN, _DEVIATION = np.array([*_SIDE, *_SIDE, *_MIDDLE]).T
"""Of 1,649 photos of Labeled Faces in the Wild, equal for both sides: a mirrored face has mirrored measures."""

LIMIT = 4.0
"""Measures are clipped to so many deviations: landmarks that were found wrongly are far outside."""

_MIRRORED = [*range(5, 10), *range(5), *range(10, 13)]


class ExpressionEncoder:
    """Measures mouth, eyes and brows, relative to the eyes and the base of the nose.

    Position, size and in-plane rotation of the head have no influence. What remains of a person is the shape of the
    face at rest, such as thick lips or high brows. The landmarks are those of `landmarks68`.

    Attributes:
        name: Stored with every embedding.
        dim: Number of measures.
    """

    name = EXPRESSION
    dim = len(MEASURES)
    template, size = DLIB_TEMPLATE, 150

    def crop(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """See `FaceEncoder`."""
        return align_face(image, landmarks, self.template, self.size)

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """Measures of aligned faces, standardised: over photos in the wild each has mean 0 and deviation 1.

        Args:
            crops: (n, 150, 150, 3), uint8 RGB.

        Returns:
            (n, 13), float32; see `MEASURES`.

        Raises:
            MissingDependencyError: dlib's weights are not installed.
        """
        face = Detection.at(self.template)
        points = [landmarks68(np.ascontiguousarray(crop), face) for crop in crops]
        standardised = (measure(np.stack(points)) - _MEAN) / _DEVIATION
        return standardised.clip(-LIMIT, LIMIT).astype(np.float32)


def measure(points: np.ndarray) -> np.ndarray:
    """Landmarks of faces, (n, 68, 2) → `MEASURES`, (n, 13).

    Widths are relative to the distance of the eyes, heights to that from the eyes to the base of the nose.
    """
    left, right = points[:, 36:42].mean(1), points[:, 42:48].mean(1)
    across = right - left
    unit = np.linalg.norm(across, axis=1)
    x = across / unit[:, None]
    axes = np.stack([x, np.stack([-x[:, 1], x[:, 0]], 1)], 1)  # right and down
    own = np.einsum("nij,npj->npi", axes, points - ((left + right) / 2)[:, None])
    wide, high = own[..., 0] / unit[:, None], own[..., 1] / own[:, 33, 1:]

    def side(inner: int, outer: slice, above: list[int], below: list[int], corner: int) -> list[np.ndarray]:
        """Measures of one side, by the indices of its landmarks."""
        middle = wide[:, [51, 57]].mean(1)
        return [
            -high[:, inner],
            -high[:, outer].mean(1),
            high[:, below].mean(1) - high[:, above].mean(1),
            high[:, [51, 57]].mean(1) - high[:, corner],
            abs(wide[:, corner] - middle),
        ]

    return np.stack(
        [
            *side(21, slice(17, 20), [37, 38], [40, 41], 48),
            *side(22, slice(24, 27), [43, 44], [46, 47], 54),
            high[:, 51] - high[:, 33],
            high[:, 66] - high[:, 62],
            high[:, 57] - high[:, 33],
        ],
        1,
    )


def mirrored(measures: torch.Tensor) -> torch.Tensor:
    """Measures of faces, (..., 13) → those of their mirror images."""
    return measures[..., _MIRRORED]
