"""`Scorer`: similarity of the faces in a generated image to the people it should show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..evaluation.judges import Judges, read_faces
from ..evaluation.similarity import cosine_similarity, found
from ..faces import FaceDetector, FaceEncoder
from .enrolled import EnrolledPerson


@dataclass(frozen=True)
class Score:
    """Similarity of one person in one image by one encoder.

    Attributes:
        image: Number of the image, from 1.
        person: Name of the person.
        encoder: Name of the encoder.
        cosine: Cosine similarity to the reference; None if no face was found.
    """

    image: int
    person: str
    encoder: str
    cosine: float | None


class Scorer:
    """Compares results with the people they should show.

    Args:
        detector: Finds the faces.
        encoders: Encoders by name: those that the adapters read, and an evaluation encoder that none of them reads.
    """

    def __init__(self, detector: FaceDetector, encoders: Mapping[str, FaceEncoder]) -> None:
        self.detector, self.encoders = detector, encoders

    def __call__(self, image: int, pixels: np.ndarray, people: Sequence[EnrolledPerson]) -> list[Score]:
        """Compare the faces of an image, (height, width, 3) RGB, with all the people it should show."""
        known = [name for name in self.encoders if all(name in person.references for person in people)]
        if not known:
            return []
        references = {name: np.stack([person.references[name] for person in people]) for name in known}
        judges = Judges(detector=self.detector, encoders={name: self.encoders[name] for name in known})
        faces, _ = read_faces(pixels, references, judges)
        scores = []
        for name in known:
            cosines, seen = cosine_similarity(faces[name], references[name]), found(faces[name])
            for person, cosine, is_found in zip(people, cosines, seen, strict=True):
                scores.append(Score(image, person.name, name, float(cosine) if is_found else None))
        return scores


def caption(scores: Sequence[Score], start: str) -> str:
    """The caption of an image: a given start, then its similarities."""
    people = dict.fromkeys(score.person for score in scores)
    parts = [start]
    for person in people:
        values = [
            f"{'no face found' if score.cosine is None else f'{score.cosine:.2f}'} ({score.encoder})"
            for score in scores
            if score.person == person
        ]
        parts.append((f"{person}: " if len(people) > 1 else "") + ", ".join(values))
    return " · ".join(parts)
