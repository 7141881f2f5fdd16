"""A faster search for faces in generated pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np

from .face import Detection
from .search import Doubt, search_upright


class Runs(Protocol):
    """A detector of upright faces that can be run without the search in four orientations."""

    @property
    def doubt(self) -> Doubt | None: ...

    def run(self, pixels: np.ndarray) -> list[Detection]: ...


@dataclass(frozen=True)
class QuickDetector:
    """A face detector for training, where most pictures show one large upright face.

    It finds the largest faces, and none narrower than an eighth of the picture with dlib. docs/benchmarks.md has its
    time, and what it changes.

    Args:
        detector: `DlibDetector` or `YuNetDetector`.
        people: Number of faces that are wanted in a picture.
    """

    detector: Runs
    people: int = 1

    def detect(self, image: np.ndarray) -> list[Detection]:
        """See `FaceDetector`."""
        return search_upright(image, self.detector.run, self.people, self.detector.doubt)
