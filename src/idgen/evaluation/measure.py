"""Pictures and real photos → a row of figures for each picture, and the scores of every picture against everybody."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from scipy.optimize import linear_sum_assignment

from ..errors import EvaluationError, NoFaceError
from ..faces import FaceDetector, FaceEncoder, align_face, load_photo
from .cases import Case
from .similarity import (
    copy_paste,
    cosine_similarity,
    disruption,
    diversity,
    found,
    identity_blending,
    pairwise_difference,
)

PromptScore = Callable[[Sequence[np.ndarray], Sequence[str], Sequence[str]], np.ndarray]
"""Pictures, their prompts and the prompts' labels → (n,), higher is better."""

Features = Callable[[Sequence[np.ndarray]], np.ndarray]
"""Pictures → (n, dim)."""


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A picture to be judged; `without` is its twin of the same prompt and seed without an identity."""

    case: Case
    file: Path
    prompt: str
    label: str = ""
    seed: int = 0
    without: Path | None = None
    seconds: float = float("nan")


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


@dataclass
class Measured:
    """Figures of a run.

    Attributes:
        rows: For each picture: `person`, `group`, `prompt`, `seed`, `file`, and `values`, metric → number (NaN where
            the metric does not exist for it). Metrics that an encoder makes are called `metric/encoder`.
        probes: Case of each probe, a person drawn in a picture.
        gallery: Case of each real person.
        genuine: (probes, gallery), whether both are the same person.
        scores: Encoder → (probes, gallery) cosines, -1 where no face was found.
        features: Of pictures and of real photos, if judged by a feature network.
    """

    rows: list[dict[str, Any]] = field(default_factory=list)
    probes: list[str] = field(default_factory=list)
    gallery: list[str] = field(default_factory=list)
    genuine: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool))
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    features: tuple[np.ndarray, np.ndarray] | None = None


Embeddings = dict[str, np.ndarray]
"""Encoder → (people, dim), unit length; NaN rows where no face was found."""

RealFaces = dict[str, tuple[Embeddings, Embeddings | None]]
"""Case → embeddings of its references, and of its target."""


def measure(shots: Sequence[Shot], judges: Judges, real: RealFaces) -> Measured:
    """Judge pictures, by the real photos that `read_real` read.

    Raises:
        EvaluationError: There is no picture.
    """
    if not shots:
        raise EvaluationError("There is no picture to judge.")
    result, pictures, embeddings = Measured(), [], []
    for shot in shots:
        picture = load_photo(shot.file)
        reference, target = real[shot.case.name]
        drawn, crop = read_faces(picture, target or reference, judges)
        values = {"detection": float(np.mean(found(next(iter(drawn.values()))))), "seconds": shot.seconds}
        for name in judges.encoders:
            values |= _similarities(name, drawn[name], reference[name], target[name] if target else None)
        if shot.without is not None:
            values["disruption"] = disruption(picture, load_photo(shot.without))
        result.rows.append(_row(shot, values))
        embeddings.append(drawn)
        pictures.append((picture, crop))
    _add_diversity(result.rows, [crop for _, crop in pictures])
    _add_judgements(result, shots, [picture for picture, _ in pictures], judges)
    _add_scores(result, shots, embeddings, real)
    return result


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


def _similarities(name: str, drawn: np.ndarray, reference: np.ndarray, target: np.ndarray | None) -> dict[str, float]:
    """Figures of one picture by one encoder, means over the people in it."""
    to_reference = cosine_similarity(drawn, reference)
    values = {f"sim_ref/{name}": float(to_reference.mean())}
    if target is None:
        return values
    to_target, real = cosine_similarity(drawn, target), cosine_similarity(target, reference)
    values[f"sim_gt/{name}"] = float(to_target.mean())
    values[f"copy_paste/{name}"] = float(copy_paste(to_target, to_reference, real).mean())
    values[f"real/{name}"] = float(real.mean())
    values[f"blending/{name}"] = identity_blending(np.nan_to_num(drawn) @ target.T)
    return values


def _row(shot: Shot, values: dict[str, float]) -> dict[str, Any]:
    told = {"person": shot.case.name, "group": shot.case.group, "prompt": shot.prompt, "seed": shot.seed}
    return {**told, "file": str(shot.file), "values": values}


def _add_diversity(rows: list[dict[str, Any]], crops: list[np.ndarray | None]) -> None:
    """Root mean square difference between face crops of the same person; a picture without a face differs by 0."""
    for person in dict.fromkeys(row["person"] for row in rows):
        index = [i for i, row in enumerate(rows) if row["person"] == person]
        seen = [i for i in range(len(index)) if crops[index[i]] is not None]
        distance = np.zeros((len(index), len(index)))
        if seen:
            distance[np.ix_(seen, seen)] = pairwise_difference(np.stack([crops[index[i]] for i in seen]))  # pyright: ignore
        for i, value in zip(index, diversity(distance), strict=True):
            rows[i]["values"]["diversity"] = float(value)


def _add_judgements(result: Measured, shots: Sequence[Shot], pictures: list[np.ndarray], judges: Judges) -> None:
    if judges.prompt_score is not None:
        scores = judges.prompt_score(pictures, [s.prompt for s in shots], [s.label for s in shots])
        for row, score in zip(result.rows, scores, strict=True):
            row["values"]["prompt"] = float(score)
    if judges.features is None:
        return
    drawn = judges.features(pictures)
    for row, shot, features in zip(result.rows, shots, drawn, strict=True):
        if shot.without is not None:
            twin = judges.features([load_photo(shot.without)])[0]
            row["values"]["clip_i"] = float(cosine_similarity(features, twin))
    photos = {photo for shot in shots for photo in (shot.case.target or shot.case.references[0],)}
    result.features = drawn, judges.features([load_photo(photo) for photo in sorted(photos)])


def _add_scores(
    result: Measured,
    shots: Sequence[Shot],
    embeddings: Sequence[Embeddings],
    real: RealFaces,
) -> None:
    """Everybody drawn against everybody real, and how alike the pictures of different people are."""
    people = {name: len(next(iter(reference.values()))) for name, (reference, _) in real.items()}
    keys = [(name, i) for name, count in people.items() for i in range(count)]
    drawn = [(shot.case.name, i) for shot in shots for i in range(people[shot.case.name])]
    result.gallery, result.probes = [name for name, _ in keys], [name for name, _ in drawn]
    result.genuine = np.array([[probe == key for key in keys] for probe in drawn])
    cases = np.array(result.probes)
    for name in embeddings[0]:
        probes = np.concatenate([one[name] for one in embeddings])
        gallery = np.concatenate([(target or reference)[name] for reference, target in real.values()])
        result.scores[name] = np.where(found(probes)[:, None], np.nan_to_num(probes) @ gallery.T, -1.0)
        vectors = np.nan_to_num(probes)
        for row in result.rows:
            own = cases == row["person"]
            others = vectors[~own] @ vectors[own].mean(0) if not own.all() else np.array([np.nan])
            row["values"][f"between/{name}"] = float(others.mean())
