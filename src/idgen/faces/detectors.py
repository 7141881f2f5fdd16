"""Face detection: the interface, and the default detector (dlib)."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from ..errors import MissingDependencyError
from .face import Detection
from .search import Doubt, search

DOUBT = Doubt(sure=1.0, least=0.2)
"""Upright faces scored above 1 in nine of ten photos, upside-down faces in none (at most 0.68, of 135). False
detections scored below 0.2 in both passes. Of 376 detections, six with scores below 0.33 were dropped."""


@runtime_checkable
class FaceDetector(Protocol):
    """Finds the faces of a photo."""

    def detect(self, image: np.ndarray) -> list[Detection]:
        """All faces in an RGB uint8 array (height, width, 3)."""
        ...


def dlib_weights(name: str) -> Path:
    """Path of a file in the CC0 package `face-recognition-models`.

    The package is located, not imported: its `__init__` needs `pkg_resources`, which setuptools has dropped.
    """
    spec = importlib.util.find_spec("face_recognition_models")
    if spec is None or not spec.submodule_search_locations:
        raise MissingDependencyError("dlib's weights are not installed: pip install face-recognition-models")
    return Path(spec.submodule_search_locations[0]) / "models" / name


# Each row times (nose x, nose y, 1) is a coordinate. The origin is the midpoint of the eyes, and the unit is their
# distance. The points are the left eye, the tip of the nose and the left corner of the mouth; the right side is
# mirrored. Fitted to YuNet's points by `benchmarks/landmarks.py`.
_FROM_NOSE = np.array(
    [
        [[0.155, -0.168, -0.400], [0.103, 0.175, -0.154]],
        [[1.425, 0.0, 0.0], [0.0, 0.606, 0.128]],
        [[0.211, -0.107, -0.376], [0.059, 0.721, 0.527]],
    ]
)


def dlib_to_canonical(points: np.ndarray) -> np.ndarray:
    """dlib's five points (four eye corners, base of the nose) → eyes, tip of the nose, mouth corners.

    dlib does not detect the mouth. Its corners are the average ones for the pose of the head.

    Args:
        points: (5, 2), pixels, in dlib's order: outer and inner corner of the eye on the right of the image, outer and
            inner corner of the eye on the left, base of the nose.

    Returns:
        (5, 2), pixels, in the order of `Detection.landmarks`.
    """
    right, left = points[:2].mean(0), points[2:4].mean(0)
    axis = right - left
    frame = np.array([[axis[0], -axis[1]], [axis[1], axis[0]]])
    nose = np.linalg.solve(frame, points[4] - (left + right) / 2)
    eye, tip, mouth = (row @ np.array([*nose, 1.0]) for row in _FROM_NOSE)
    mirror = np.array([-1.0, 1.0])
    other_eye, _, other_mouth = ((row @ np.array([-nose[0], nose[1], 1.0])) * mirror for row in _FROM_NOSE)
    local = np.stack([eye, other_eye, tip, mouth, other_mouth])
    return local @ frame.T + (left + right) / 2


class DlibDetector:
    """dlib's frontal face detector (HOG) and its five-point shape predictor; free for any use, and offline.

    It can be called from several threads. All instances in a process share dlib's own objects.

    Args:
        working_side: Photos are resized so that their longer side has this many pixels, but enlarged at most three
            times. The detector finds faces of at least 80 of these pixels.
        score_threshold: Minimum score of a face. False detections, for example in folds of clothes, score just above
            zero, which is dlib's own threshold.
    """

    landmarks = staticmethod(dlib_to_canonical)
    doubt = DOUBT

    def __init__(self, working_side: int = 1280, score_threshold: float = 0.1) -> None:
        self.working_side = working_side
        self.score_threshold = score_threshold

    def detect(self, image: np.ndarray) -> list[Detection]:
        return search(image, self.run, self.working_side, doubt=self.doubt)

    def run(self, pixels: np.ndarray) -> list[Detection]:
        """Upright faces, found without resizing the picture."""
        with _frontal_detector() as detector:
            boxes, scores, _ = detector.run(pixels, 0, self.score_threshold)
        return [self._detection(pixels, box, score) for box, score in zip(boxes, scores, strict=True)]

    def _detection(self, pixels: np.ndarray, box: Any, score: float) -> Detection:
        parts = np.array([(p.x, p.y) for p in _predictor()(pixels, box).parts()], np.float64)
        corners = np.array([box.left(), box.top(), box.right() + 1, box.bottom() + 1], np.float64)
        return Detection(corners, self.landmarks(parts), float(score))


_idle: list[Any] = []


@contextmanager
def _frontal_detector() -> Iterator[Any]:
    """One of dlib's detectors that no other thread is using: it takes half a second to make one."""
    import dlib

    try:
        detector = _idle.pop()
    except IndexError:
        detector = dlib.get_frontal_face_detector()  # pyright: ignore[reportAttributeAccessIssue]
    try:
        yield detector
    finally:
        _idle.append(detector)


@cache
def _predictor() -> Any:
    import dlib

    weights = str(dlib_weights("shape_predictor_5_face_landmarks.dat"))
    return dlib.shape_predictor(weights)  # pyright: ignore[reportAttributeAccessIssue]
