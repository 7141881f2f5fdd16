"""How like the faces in a result are to the people it shall show."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..evaluation.judges import Judges, read_faces
from ..evaluation.similarity import cosine_similarity, found
from ..faces import FaceDetector, FaceEncoder
from .people import Person


@dataclass(frozen=True)
class Score:
    """Of one person in one picture by one encoder.

    Attributes:
        picture: Number of the picture, from 1.
        person: Their name.
        encoder: Its name.
        cosine: To the reference; None where the face was not found.
    """

    picture: int
    person: str
    encoder: str
    cosine: float | None


class Likeness:
    """Judge of results.

    Args:
        detector: Finds the faces.
        encoders: By name: those that the adapters read, and one that they do not, if there is one.
    """

    def __init__(self, detector: FaceDetector, encoders: Mapping[str, FaceEncoder]) -> None:
        self.detector, self.encoders = detector, encoders

    def __call__(self, picture: int, pixels: np.ndarray, people: Sequence[Person]) -> list[Score]:
        """Compare the faces of a picture, (height, width, 3) RGB, with everybody who shall be in it."""
        known = [name for name in self.encoders if all(name in person.references for person in people)]
        if not known:
            return []
        references = {name: np.stack([person.references[name] for person in people]) for name in known}
        judges = Judges(detector=self.detector, encoders={name: self.encoders[name] for name in known})
        drawn, _ = read_faces(pixels, references, judges)
        scores = []
        for name in known:
            cosines, seen = cosine_similarity(drawn[name], references[name]), found(drawn[name])
            for person, cosine, there in zip(people, cosines, seen, strict=True):
                scores.append(Score(picture, person.name, name, float(cosine) if there else None))
        return scores


def caption(scores: Sequence[Score], told: str = "") -> str:
    """A line under a picture."""
    people = dict.fromkeys(score.person for score in scores)
    parts = [told] if told else []
    for person in people:
        values = [
            f"{'no face found' if score.cosine is None else f'{score.cosine:.2f}'} ({score.encoder})"
            for score in scores
            if score.person == person
        ]
        parts.append((f"{person}: " if len(people) > 1 else "") + ", ".join(values))
    return " · ".join(parts)
