"""Measure pictures: a row of metrics for each picture, and the scores of every picture against every real person."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypedDict

import numpy as np

from ..errors import EvaluationError
from ..faces import load_photo
from .cases import Case
from .judges import BATCH, Embeddings, Judges, NetworkFeatures, RealFaces, features_of, read_faces
from .metric import Crop, Faces, Picture
from .metrics import metrics_of, picture_values
from .similarity import found


@dataclass(frozen=True, kw_only=True)
class Shot:
    """A picture to be measured.

    Attributes:
        case: The people it shows.
        file: The picture.
        prompt: Its prompt.
        label: The prompt's label for a classifier.
        seed: Seed of its noise.
        without: The picture of the same prompt and seed without an identity.
        seconds: Time that drawing it took.
        groups: Groups of the picture, besides those of its people: what groups are of → group.
    """

    case: Case
    file: Path
    prompt: str
    label: str = ""
    seed: int = 0
    without: Path | None = None
    seconds: float | None = None
    groups: Mapping[str, str] = field(default_factory=dict)


class Row(TypedDict):
    """One picture in `report.json`: `groups` are what groups are of → the group, `values` the metrics, by name or
    `name/encoder`."""

    person: str
    groups: dict[str, str]
    prompt: str
    seed: int
    file: str
    values: dict[str, float]


@dataclass
class Measured:
    """The measurements of a run.

    Attributes:
        rows: One for each picture. A metric that does not exist for a picture is missing, or NaN.
        probes: Case of each probe, a person drawn in a picture.
        gallery: Case of each real person.
        genuine: (probes, gallery), whether both are the same person.
        scores: Encoder → (probes, gallery) cosines, -1 where no face was found.
        features: Of the pictures and of real photos, if there is a feature network.
    """

    rows: list[Row] = field(default_factory=list)
    probes: list[str] = field(default_factory=list)
    gallery: list[str] = field(default_factory=list)
    genuine: np.ndarray = field(default_factory=lambda: np.zeros((0, 0), bool))
    scores: dict[str, np.ndarray] = field(default_factory=dict)
    features: tuple[np.ndarray, np.ndarray] | None = None


def measure(shots: Sequence[Shot], judges: Judges, real: RealFaces) -> Measured:
    """Measure pictures, given the real photos that `read_real` read.

    Pictures are read `BATCH` at a time. Besides the measurements, the crops of one person's faces are kept until all
    of that person's pictures are read: pass the shots person by person.

    Raises:
        EvaluationError: There is no picture.
    """
    if not shots:
        raise EvaluationError("There is no picture to measure.")
    result, embeddings, features = Measured(), [], []
    crops, references = _CropsByPerson(shots), _PicturesWithoutIdentity(judges.features)
    for start in range(0, len(shots), BATCH):
        batch = shots[start : start + BATCH]
        for shot, (picture, crop) in zip(batch, _read(batch, judges, real, references), strict=True):
            row = Row(
                person=shot.case.name,
                groups={**shot.case.groups, **shot.groups},
                prompt=shot.prompt,
                seed=shot.seed,
                file=str(shot.file),
                values=picture_values(picture),
            )
            crops.add(row, crop)
            result.rows.append(row)
            embeddings.append({name: faces.drawn for name, faces in picture.faces.items()})
            features.append(picture.features)
    if judges.features is not None:
        photos = sorted({shot.case.target or shot.case.references[0] for shot in shots})
        result.features = np.stack(features), features_of(photos, judges.features)
    _add_scores(result, shots, embeddings, real)
    return result


def _read(
    shots: Sequence[Shot], judges: Judges, real: RealFaces, references: _PicturesWithoutIdentity
) -> Iterator[tuple[Picture, Crop]]:
    """A batch of pictures with all that networks say of them, and the crop of the largest face in each."""
    pixels = [load_photo(shot.file) for shot in shots]
    references.read(shots)
    prompts, labels = [shot.prompt for shot in shots], [shot.label for shot in shots]
    scores = None if judges.prompt_score is None else judges.prompt_score(pixels, prompts, labels)
    features = None if judges.features is None else judges.features(pixels)
    for i, shot in enumerate(shots):
        reference, target = real[shot.case.name]
        drawn, crop = read_faces(pixels[i], target or reference, judges)
        faces = {
            name: Faces(drawn=drawn[name], reference=reference[name], target=target[name] if target else None)
            for name in judges.encoders
        }
        picture = Picture(
            pixels=pixels[i],
            faces=faces,
            without=None if shot.without is None else references.pixels[shot.without],
            seconds=shot.seconds,
            prompt_score=None if scores is None else float(scores[i]),
            features=None if features is None else features[i],
            features_without=None if shot.without is None else references.features.get(shot.without),
        )
        yield picture, crop


class _CropsByPerson:
    """The face crops of each person, until the metrics that read all of them can be computed."""

    def __init__(self, shots: Sequence[Shot]) -> None:
        self._left = Counter(shot.case.name for shot in shots)
        self._waiting: dict[str, list[tuple[Row, Crop]]] = defaultdict(list)

    def add(self, row: Row, crop: Crop) -> None:
        """Keep a crop. With the last one of a person, the metrics are added to all rows of that person."""
        person = row["person"]
        self._waiting[person].append((row, crop))
        self._left[person] -= 1
        if self._left[person]:
            return
        rows, crops = zip(*self._waiting.pop(person), strict=True)
        for metric in metrics_of("person"):
            for one, value in zip(rows, metric.compute(crops), strict=True):
                one["values"][metric.name] = float(value)


class _PicturesWithoutIdentity:
    """The pictures of a batch's prompts and seeds without an identity.

    Their features are kept, since all people are drawn under the same prompts.
    """

    def __init__(self, features: NetworkFeatures | None) -> None:
        self._make = features
        self.pixels: dict[Path, np.ndarray] = {}
        self.features: dict[Path, np.ndarray] = {}

    def read(self, shots: Sequence[Shot]) -> None:
        """Read those of a batch, and forget the pictures of the batch before."""
        files = dict.fromkeys(shot.without for shot in shots if shot.without is not None)
        self.pixels = {file: load_photo(file) for file in files}
        new = [file for file in files if file not in self.features]
        if self._make is not None and new:
            self.features |= zip(new, self._make([self.pixels[file] for file in new]), strict=True)


def _add_scores(result: Measured, shots: Sequence[Shot], embeddings: Sequence[Embeddings], real: RealFaces) -> None:
    """Add the cosines of everyone drawn to everyone real, and the metrics that read all embeddings."""
    people = {name: len(next(iter(reference.values()))) for name, (reference, _) in real.items()}
    keys = [(name, i) for name, count in people.items() for i in range(count)]
    drawn = [(shot.case.name, i) for shot in shots for i in range(people[shot.case.name])]
    result.gallery, result.probes = [name for name, _ in keys], [name for name, _ in drawn]
    column = {key: i for i, key in enumerate(keys)}
    result.genuine = np.zeros((len(drawn), len(keys)), bool)
    result.genuine[np.arange(len(drawn)), [column[probe] for probe in drawn]] = True
    probes = np.array(result.probes)
    first = np.cumsum([0] + [people[shot.case.name] for shot in shots])[:-1]  # probe of each picture's first person
    for name in embeddings[0]:
        vectors = np.concatenate([one[name] for one in embeddings])
        gallery = np.concatenate([(target or reference)[name] for reference, target in real.values()])
        result.scores[name] = np.where(found(vectors)[:, None], np.nan_to_num(vectors) @ gallery.T, -1.0)
        for metric in metrics_of("everyone"):
            values = metric.compute(vectors, probes)
            for row, i in zip(result.rows, first, strict=True):
                row["values"][f"{metric.name}/{name}"] = float(values[i])
