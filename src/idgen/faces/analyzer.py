"""`FaceAnalyzer`: detects, aligns and embeds the faces of photos."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Self

import numpy as np

from .align import align_face
from .detectors import FaceDetector
from .dlib_encoder import DlibEncoder
from .encoder import FaceEncoder
from .face import Choice, Detection, Face, choose_face
from .photo import Photo, load_photo
from .registry import default_detector, detector_of, open_encoder, spec_of

SMALL_FACE = 40
"""Faces narrower than this many pixels cause a warning."""


class FaceAnalyzer:
    """Detects, aligns and embeds faces.

    The default detector and encoder work offline and are free for commercial use.

    Args:
        detector: Face detector; the encoder's own if it has one, else `DlibDetector()`.
        encoder: Face encoder; `DlibEncoder()` if not given. Its name is stored with embeddings and adapters.

    Example:
        >>> face = FaceAnalyzer().find("anna.jpg")
        >>> faces = FaceAnalyzer().analyze("group.jpg")  # largest first
    """

    def __init__(self, detector: FaceDetector | None = None, encoder: FaceEncoder | None = None) -> None:
        self.encoder = encoder or DlibEncoder()
        self.detector = detector or default_detector(self.encoder)

    @classmethod
    def open(cls, spec: str) -> Self:
        """The analyzer with a face encoder that the user names, and the detector that belongs to it.

        Raises as `open_encoder`.
        """
        encoder = open_encoder(spec)
        return cls(detector_of(spec, encoder), encoder)

    @classmethod
    def for_encoder(cls, name: str) -> Self:
        """The analyzer with the face encoder of embeddings, by the name that is stored with them.

        Raises:
            EncoderMismatchError: The encoder is not known; see `spec_of`.
            CheckpointError: It is an insightface pack that cannot be found.
        """
        return cls.open(spec_of(name))

    def analyze(self, photo: Photo) -> list[Face]:
        """All faces of a photo, largest first; empty if there is none.

        Raises:
            ImageError: The photo cannot be opened.
        """
        return self.analyze_batch([photo])[0]

    def analyze_batch(
        self, photos: Sequence[Photo], landmarks: Sequence[np.ndarray | None] | None = None
    ) -> list[list[Face]]:
        """All faces of each photo, largest first. The crops of all photos are embedded in one batch.

        Args:
            photos: The photos.
            landmarks: Known landmarks of the only face of a photo, (5, 2) in pixels, instead of detection; `None` to
                detect faces.
        """
        images = [load_photo(photo) for photo in photos]
        found = [
            sorted(self.detector.detect(image), key=lambda d: d.area, reverse=True)
            if points is None
            else [Detection.at(points)]
            for image, points in zip(images, landmarks or [None] * len(images), strict=True)
        ]
        crops = [
            self.encoder.crop(image, detection.landmarks)
            for image, detections in zip(images, found, strict=True)
            for detection in detections
        ]
        embeddings = iter(self.encoder.embed(np.stack(crops)) if crops else ())
        return [
            [
                Face(
                    box=detection.box,
                    landmarks=detection.landmarks,
                    score=detection.score,
                    crop=align_face(image, detection.landmarks),
                    embedding=next(embeddings),
                    encoder=self.encoder.name,
                )
                for detection in detections
            ]
            for image, detections in zip(images, found, strict=True)
        ]

    def find(self, photo: Photo, face: Choice | None = None) -> Face:
        """The only face of a photo, or the one that `face` chooses; see `choose_face` for its forms and errors."""
        chosen = choose_face(self.analyze(photo), face)
        if chosen.size < SMALL_FACE:
            warnings.warn(
                f"The face is only {chosen.size:.0f} px wide; below {SMALL_FACE} px the similarity decreases.",
                stacklevel=2,
            )
        return chosen
