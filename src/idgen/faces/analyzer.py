"""`FaceAnalyzer`: photos → faces, with any detector and any encoder."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Self

import numpy as np

from ..errors import EncoderMismatchError
from .align import align_face
from .detectors import DlibDetector, FaceDetector
from .encoders import DlibEncoder, FaceEncoder
from .face import Choice, Detection, Face, choose_face
from .photo import Photo, load_photo

SMALL_FACE = 40
"""Faces under this many pixels carry little identity; finding one is a warning."""


class FaceAnalyzer:
    """Find faces, align them, embed them.

    Detector and encoder are separate choices; the default of both runs offline and is free for commercial use.

    Args:
        detector: Defaults to `DlibDetector()`.
        encoder: Defaults to `DlibEncoder()`. Its name is the one that embeddings and adapters carry.

    Example:
        >>> face = FaceAnalyzer().find("anna.jpg")
        >>> faces = FaceAnalyzer().analyze("group.jpg")  # largest first
    """

    def __init__(self, detector: FaceDetector | None = None, encoder: FaceEncoder | None = None) -> None:
        self.detector = detector or DlibDetector()
        self.encoder = encoder or DlibEncoder()

    @classmethod
    def for_encoder(cls, name: str) -> Self:
        """The analyzer whose embeddings carry this encoder's name.

        Raises:
            EncoderMismatchError: No encoder that can be opened by its name alone is called so.
            CheckpointError: It is an insightface pack that is not at hand.
        """
        if name == DlibEncoder.name:
            return cls()
        if name.startswith("insightface/"):
            from .insightface import InsightFaceDetector, InsightFaceEncoder, InsightFacePack

            pack = InsightFacePack(name.removeprefix("insightface/"))
            return cls(InsightFaceDetector(pack), InsightFaceEncoder(pack))
        raise EncoderMismatchError(
            f"No built-in encoder is called '{name}'; give face_analyzer=FaceAnalyzer(encoder=…)."
        )

    def analyze(self, photo: Photo) -> list[Face]:
        """All faces of one photo, largest first; empty when there is none.

        Raises:
            ImageError: The photo cannot be opened.
        """
        return self.analyze_batch([photo])[0]

    def analyze_batch(
        self, photos: Sequence[Photo], landmarks: Sequence[np.ndarray | None] | None = None
    ) -> list[list[Face]]:
        """All faces of each photo, largest first; the encoder sees the crops of all photos in one batch.

        Args:
            photos: The photos.
            landmarks: (5, 2) in pixels for each photo whose one face is known, where nothing is detected.
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
        """The one face that is meant; see `choose_face` for `face` and what is raised."""
        chosen = choose_face(self.analyze(photo), face)
        if chosen.size < SMALL_FACE:
            warnings.warn(
                f"The face is only {chosen.size:.0f} px wide; the likeness suffers under {SMALL_FACE} px.",
                stacklevel=2,
            )
        return chosen
