"""Pictures and real photos → a row of figures for each picture, and the scores of every picture against everybody."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EvaluationError
from ..faces import load_photo
from .cases import Case
from .judges import BATCH, Embeddings, Features, Judges, RealFaces, features_of, read_faces
from .similarity import (
    copy_paste,
    cosine_similarity,
    disruption,
    diversity,
    found,
    identity_blending,
    pairwise_difference,
)


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


def measure(shots: Sequence[Shot], judges: Judges, real: RealFaces) -> Measured:
    """Judge pictures, by the real photos that `read_real` read.

    Pictures are read a few at a time: besides their figures, the crops of one person's faces are kept until all of
    that person's pictures are read. Give the shots person by person.

    Raises:
        EvaluationError: There is no picture.
    """
    if not shots:
        raise EvaluationError("There is no picture to judge.")
    result, embeddings, features = Measured(), [], []
    diversities, twins = _Diversities(shots), _Twins(judges.features)
    for start in range(0, len(shots), BATCH):
        batch = shots[start : start + BATCH]
        pictures = [load_photo(shot.file) for shot in batch]
        twins.read(batch)
        rows = []
        for shot, picture in zip(batch, pictures, strict=True):
            drawn, crop, values = _faces_of(shot, picture, judges, real)
            if shot.without is not None:
                values["disruption"] = disruption(picture, twins.pictures[shot.without])
            embeddings.append(drawn)
            rows.append(_row(shot, values))
            diversities.add(rows[-1], crop)
        features.append(_judge(rows, batch, pictures, judges, twins))
        result.rows += rows
    if judges.features is not None:
        photos = sorted({shot.case.target or shot.case.references[0] for shot in shots})
        result.features = np.concatenate(features), features_of(photos, judges.features)
    _add_scores(result, shots, embeddings, real)
    return result


def _faces_of(
    shot: Shot, picture: np.ndarray, judges: Judges, real: RealFaces
) -> tuple[Embeddings, np.ndarray | None, dict[str, float]]:
    """Embeddings of the faces in a picture, the crop of the largest, and its figures by every encoder."""
    reference, target = real[shot.case.name]
    drawn, crop = read_faces(picture, target or reference, judges)
    values = {"detection": float(np.mean(found(next(iter(drawn.values()))))), "seconds": shot.seconds}
    for name in judges.encoders:
        values |= _similarities(name, drawn[name], reference[name], target[name] if target else None)
    return drawn, crop, values


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


class _Diversities:
    """Root mean square difference between face crops of the same person; a picture without a face differs by 0."""

    def __init__(self, shots: Sequence[Shot]) -> None:
        self._left = Counter(shot.case.name for shot in shots)
        self._waiting: dict[str, list[tuple[dict[str, float], np.ndarray | None]]] = defaultdict(list)

    def add(self, row: dict[str, Any], crop: np.ndarray | None) -> None:
        """Keep a crop; with the last one of a person, all rows of that person get their figure."""
        person = row["person"]
        self._waiting[person].append((row["values"], crop))
        self._left[person] -= 1
        if self._left[person]:
            return
        waiting = self._waiting.pop(person)
        seen = [i for i, (_, crop) in enumerate(waiting) if crop is not None]
        distance = np.zeros((len(waiting), len(waiting)))
        if seen:
            distance[np.ix_(seen, seen)] = pairwise_difference(np.stack([waiting[i][1] for i in seen]))  # pyright: ignore
        for (values, _), value in zip(waiting, diversity(distance), strict=True):
            values["diversity"] = float(value)


class _Twins:
    """The pictures of a batch's prompts and seeds without an identity; features of those that came before are kept,
    since everybody is drawn under the same prompts."""

    def __init__(self, features: Features | None) -> None:
        self._make = features
        self.pictures: dict[Path, np.ndarray] = {}
        self.features: dict[Path, np.ndarray] = {}

    def read(self, shots: Sequence[Shot]) -> None:
        """Read those of a batch, and forget the pictures of the one before."""
        files = dict.fromkeys(shot.without for shot in shots if shot.without is not None)
        self.pictures = {file: load_photo(file) for file in files}
        new = [file for file in files if file not in self.features]
        if self._make is not None and new:
            self.features |= zip(new, self._make([self.pictures[file] for file in new]), strict=True)


def _judge(
    rows: Sequence[dict[str, Any]],
    shots: Sequence[Shot],
    pictures: Sequence[np.ndarray],
    judges: Judges,
    twins: _Twins,
) -> np.ndarray:
    """Add prompt fidelity and CLIP-I to the rows of a batch; returns the pictures' features, (n, dim)."""
    if judges.prompt_score is not None:
        scores = judges.prompt_score(pictures, [shot.prompt for shot in shots], [shot.label for shot in shots])
        for row, score in zip(rows, scores, strict=True):
            row["values"]["prompt"] = float(score)
    if judges.features is None:
        return np.empty((len(shots), 0))
    found = judges.features(pictures)
    for row, shot, features in zip(rows, shots, found, strict=True):
        if shot.without is not None:
            row["values"]["clip_i"] = float(cosine_similarity(features, twins.features[shot.without]))
    return found


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
    column = {key: i for i, key in enumerate(keys)}
    result.genuine = np.zeros((len(drawn), len(keys)), bool)
    result.genuine[np.arange(len(drawn)), [column[probe] for probe in drawn]] = True
    cases = np.array(result.probes)
    for name in embeddings[0]:
        probes = np.concatenate([one[name] for one in embeddings])
        gallery = np.concatenate([(target or reference)[name] for reference, target in real.values()])
        result.scores[name] = np.where(found(probes)[:, None], np.nan_to_num(probes) @ gallery.T, -1.0)
        vectors = np.nan_to_num(probes)
        between = {person: _between(vectors, cases == person) for person in people}
        for row in result.rows:
            row["values"][f"between/{name}"] = between[row["person"]]


def _between(vectors: np.ndarray, own: np.ndarray) -> float:
    """Mean cosine of a person's pictures to those of all others; NaN where there are no others."""
    if own.all() or not own.any():
        return float("nan")
    return float((vectors.sum(0) - vectors[own].sum(0)) @ vectors[own].mean(0) / (~own).sum())
