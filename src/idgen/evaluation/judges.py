"""What pictures are judged with, and the faces that it finds in them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from scipy.optimize import linear_sum_assignment

from ..errors import EvaluationError, NoFaceError
from ..faces import FaceDetector, FaceEncoder, align_face, load_photo
from .cases import Case
from .similarity import found

PromptScore = Callable[[Sequence[np.ndarray], Sequence[str], Sequence[str]], np.ndarray]
"""Pictures, their prompts and the prompts' labels → (n,), higher is better."""

BATCH = 16
"""Pictures that are in memory, and go through a network, at once."""

Features = Callable[[Sequence[np.ndarray]], np.ndarray]
"""Pictures → (n, dim)."""


@dataclass(frozen=True, kw_only=True)
class Judges:
    """What pictures are judged with.

    Attributes:
        detector: Finds the faces, the same for all encoders.
        encoders: By name; where several people stand in a picture, the first says who is who.
        prompt_score: For prompt fidelity.
        features: Of whole pictures, for CLIP-I to the picture without identity and for Fréchet distance.
    """

    detector: FaceDetector
    encoders: Mapping[str, FaceEncoder]
    prompt_score: PromptScore | None = None
    features: Features | None = None

    @property
    def metrics(self) -> set[str]:
        """Names of what they measure; the summary has a title for each."""
        every = {"detection", "seconds", "disruption", "diversity"}
        by_encoder = {"sim_ref", "sim_gt", "copy_paste", "real", "blending", "between"}
        prompt = {"prompt"} if self.prompt_score is not None else set()
        return every | by_encoder | prompt | ({"clip_i", "fid"} if self.features is not None else set())


Embeddings = dict[str, np.ndarray]
"""Encoder → (people, dim), unit length; NaN rows where no face was found."""

RealFaces = dict[str, tuple[Embeddings, Embeddings | None]]
"""Case → embeddings of its references, and of its target."""


def read_real(cases: Sequence[Case], judges: Judges) -> RealFaces:
    """Find and embed the faces of all real photos.

    Raises:
        NoFaceError: A photo shows fewer faces than people.
        EvaluationError: A case has no reference photo to compare with.
    """
    real: RealFaces = {}
    missing = []
    for case in cases:
        if not case.references:
            raise EvaluationError(f"'{case.name}' has no reference photo to compare with.")
        single = [read_faces(load_photo(photo), None, judges)[0] for photo in case.references]
        reference = {name: np.concatenate([one[name] for one in single]) for name in judges.encoders}
        target = read_faces(load_photo(case.target), reference, judges)[0] if case.target else None
        first = next(iter(judges.encoders))
        if not (found(reference[first]).all() and (target is None or found(target[first]).all())):
            missing.append(case.name)
        real[case.name] = (reference, target)
    if missing:
        raise NoFaceError(f"No face in a real photo of {', '.join(missing)}; choose other photos, or leave them out.")
    return real


def read_faces(image: np.ndarray, people: Embeddings | None, judges: Judges) -> tuple[Embeddings, np.ndarray | None]:
    """Embeddings of the largest faces, in the order of those they resemble; and the crop of the largest, if any.

    Args:
        image: (height, width, 3) RGB.
        people: Who is looked for, by all of the judges' encoders; one person, if None.
        judges: Detector and encoders.
    """
    count = 1 if people is None else len(next(iter(people.values())))
    faces = sorted(judges.detector.detect(image), key=lambda face: face.area, reverse=True)[:count]
    if not faces:
        return {name: np.full((count, encoder.dim), np.nan) for name, encoder in judges.encoders.items()}, None
    embeddings = {}
    for name, encoder in judges.encoders.items():
        raw = encoder.embed(np.stack([encoder.crop(image, face.landmarks) for face in faces])).astype(np.float64)
        embeddings[name] = raw / np.linalg.norm(raw, axis=-1, keepdims=True)
    first = next(iter(embeddings))
    rows, columns = np.arange(1), np.arange(1)
    if people is not None and count > 1:  # whom each face shows best, all together (Hungarian matching)
        rows, columns = linear_sum_assignment(-embeddings[first] @ people[first].T)
    ordered = {name: np.full((count, found_.shape[1]), np.nan) for name, found_ in embeddings.items()}
    for name, found_ in embeddings.items():
        ordered[name][columns] = found_[rows]
    return ordered, align_face(image, faces[0].landmarks)


def features_of(photos: Sequence[Path], features: Features) -> np.ndarray:
    """Features of photos, (n, dim), a few at a time."""
    starts = range(0, len(photos), BATCH)
    return np.concatenate([features([load_photo(photo) for photo in photos[i : i + BATCH]]) for i in starts])
