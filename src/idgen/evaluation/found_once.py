"""`FoundOnce`: a detector for real photos, which are read for the scores and for the groups of a run."""

from __future__ import annotations

import hashlib

import numpy as np

from ..faces import Detection, FaceDetector


class FoundOnce:
    """Finds the faces of each photo once.

    Kept are a digest and the detections of each photo, for as long as this object lives.

    Args:
        detector: Finds the faces.
    """

    def __init__(self, detector: FaceDetector) -> None:
        self.detector = detector
        self._found: dict[tuple[tuple[int, ...], bytes], list[Detection]] = {}

    def detect(self, image: np.ndarray) -> list[Detection]:
        """The detector's faces of an RGB uint8 array (height, width, 3)."""
        key = image.shape, hashlib.sha256(image.tobytes()).digest()
        if key not in self._found:
            self._found[key] = self.detector.detect(image)
        return list(self._found[key])
