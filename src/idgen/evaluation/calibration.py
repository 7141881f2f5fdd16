"""`idgen calibrate`: how a face encoder's similarities lie on photos of many people, and how sure that is."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from tempfile import TemporaryDirectory
from typing import NamedTuple

import numpy as np

from ..data.assign import AssignOptions
from ..data.cache import write_caches
from ..data.clustering import unit
from ..data.engines import LocalProcesses
from ..data.manifest import NAME, Manifest
from ..data.pairs import cosines_of, genuine_pairs, impostor_pairs
from ..data.prepare import PrepareOptions, prepare
from ..data.statistics import NamedFaces, measure, named_faces
from ..data.storage import exists, join
from ..faces import EncoderStatistics, register_encoder
from .cases import OWN
from .intervals import Interval, interval_of, resamples

PAIRS, BINS = 200_000, 4000
EVERYBODY = "everybody"
ONE_PERSON, TWO_PEOPLE, EER, MATCHED, MISSED = "one person", "two people", "EER", "false matches", "missed"


@dataclass(frozen=True, kw_only=True)
class Rates:
    """Error rates at one threshold.

    Attributes:
        threshold: Cosine, of all people.
        false_match: Share of the pairs of different people above it.
        missed: Share of the pairs of one person that is not above it.
    """

    threshold: float
    false_match: Interval
    missed: Interval


@dataclass(frozen=True, kw_only=True)
class Similarities:
    """The similarities of a group, with 95 % intervals over people.

    Attributes:
        by: What the group is of: "group" of people, "pose" or "face size" of photos; empty for everybody.
        group: Name of the group.
        people: Number of people.
        genuine: Mean cosine of two photos of one person, both of the group.
        impostor: Mean cosine of photos of two people of the group.
        equal_error: Equal error rate.
        rates: One for each false-match rate that was asked for.
    """

    by: str
    group: str
    people: int
    genuine: Interval
    impostor: Interval
    equal_error: Interval
    rates: tuple[Rates, ...]


class Gap(NamedTuple):
    """The largest difference of a figure between two groups, and its interval; 0 outside of it means certain."""

    figure: str
    by: str
    highest: str
    lowest: str
    difference: Interval


class Calibrated(NamedTuple):
    """The statistics of an encoder, what they are worth for everybody and each group, and the gaps between groups."""

    statistics: EncoderStatistics
    groups: list[Similarities]
    gaps: list[Gap]


def calibrate(photos: str, encoders: Sequence[str] = (), rates: Sequence[float] = (1e-2, 1e-3)) -> list[Calibrated]:
    """Measure face encoders on the training split of a set, or on a folder with a folder of photos for each person.

    Args:
        photos: Folder or URL of a prepared set, or of photos.
        encoders: As `open_encoder` opens them; by default that of the set, or the default encoder for photos.
        rates: False-match rates.

    Raises:
        DataError: The photos cannot be read, or the set has no embeddings of an encoder.
        StatisticsError: There are too few people.
    """
    if exists(join(photos, NAME)):
        own = [Manifest.open(photos).encoder]
        names = [register_encoder(spec) for spec in encoders] or own
        return [measure_similarities(named_faces(photos, encoder=name), rates) for name in names]
    with TemporaryDirectory() as folder:
        shards, engine = join(folder, "set"), LocalProcesses(os.cpu_count() or 1)
        first, *others = encoders or ("dlib-resnet-v1",)
        options = PrepareOptions(photos=photos, output=shards, encoder=first, people=AssignOptions(shares={}))
        prepare(options, engine)
        write_caches(shards, (), base="", resolution=0, encoders=others, engine=engine)
        return calibrate(shards, [first, *others], rates)


def measure_similarities(faces: NamedFaces, rates: Sequence[float]) -> Calibrated:
    """Measure one encoder; raises StatisticsError if there are too few people.

    Groups of photos hold those people who have a photo of this pose or size.
    """
    statistics = measure(faces.encoder, faces.embeddings, faces.labels)
    thresholds = [statistics.threshold(rate) for rate in rates]
    units = unit(faces.embeddings)
    everybody = _Group(units, faces.labels, np.ones(len(units), bool))
    found = [_similarities("", EVERYBODY, everybody.people, everybody.samples(thresholds), thresholds)]
    gaps: list[Gap] = []
    own = np.array([name or "" for name in faces.groups], dtype=object)[faces.labels]
    for by, of in {OWN: own, **faces.photo_groups}.items():
        every = {name: _Group(units, faces.labels, of == name) for name in sorted({*of} - {""})}
        samples = {name: group.samples(thresholds) for name, group in every.items() if group.has_pairs}
        found += [_similarities(by, name, every[name].people, each, thresholds) for name, each in samples.items()]
        gaps += _gaps(by, samples)
    return Calibrated(statistics, found, gaps)


def _similarities(
    by: str, name: str, people: int, samples: dict[str, np.ndarray], thresholds: Sequence[float]
) -> Similarities:
    figures = {figure: interval_of(values) for figure, values in samples.items()}
    return Similarities(
        by=by,
        group=name,
        people=people,
        genuine=figures[ONE_PERSON],
        impostor=figures[TWO_PEOPLE],
        equal_error=figures[EER],
        rates=tuple(
            Rates(
                threshold=each,
                false_match=figures[f"{MATCHED} at {each:.3f}"],
                missed=figures[f"{MISSED} at {each:.3f}"],
            )
            for each in thresholds
        ),
    )


def _gaps(by: str, samples: dict[str, dict[str, np.ndarray]]) -> Iterator[Gap]:
    if len(samples) < 2:
        return
    for figure in next(iter(samples.values())):
        values = {name: of_group[figure] for name, of_group in samples.items()}
        highest, lowest = (choose(values, key=lambda name: values[name][0]) for choose in (max, min))
        yield Gap(figure, by, highest, lowest, interval_of(values[highest] - values[lowest]))


class _Group:
    """The pairs of a group's photos, (faces,) booleans, and what its people give when they are drawn again."""

    def __init__(self, units: np.ndarray, labels: np.ndarray, of_group: np.ndarray) -> None:
        people, numbers = np.unique(labels[of_group], return_inverse=True)
        inside = np.full(len(labels), -1)
        inside[of_group] = numbers
        same, (first, second) = genuine_pairs(inside, PAIRS), impostor_pairs(inside, PAIRS)
        self.people = len(people)
        self.genuine, self.impostor = cosines_of(units, *same), cosines_of(units, first, second)
        self._one, self._first, self._second = inside[same[0]], inside[first], inside[second]

    @property
    def has_pairs(self) -> bool:
        """Whether there are pairs of one person and of two people."""
        return self.people > 1 and len(self.genuine) > 0

    def samples(self, thresholds: Sequence[float]) -> dict[str, np.ndarray]:
        """Figure → its value for everybody, and for each draw of people; see `resamples`."""
        rows = [self._figures(weights, thresholds) for weights in resamples(self.people)]
        return {figure: np.array([row[figure] for row in rows]) for figure in rows[0]}

    def _figures(self, weights: np.ndarray, thresholds: Sequence[float]) -> dict[str, float]:
        """Of the pairs that each person, or pair of people, has; people count with these weights."""
        genuine, impostor = weights[self._one], weights[self._first] * weights[self._second]
        if not genuine.any() or not impostor.any():
            return dict.fromkeys(_names(thresholds), float("nan"))
        below = np.bincount(self._bins[0], genuine, BINS).cumsum() / genuine.sum()
        above = 1 - np.bincount(self._bins[1], impostor, BINS).cumsum() / impostor.sum()
        nearest = np.abs(below - above).argmin()
        means = genuine @ self.genuine / genuine.sum(), impostor @ self.impostor / impostor.sum()
        figures = [*means, (below[nearest] + above[nearest]) / 2]
        for each in thresholds:
            figures += [impostor @ (self.impostor > each) / impostor.sum()]
            figures += [genuine @ (self.genuine <= each) / genuine.sum()]
        return dict(zip(_names(thresholds), map(float, figures), strict=True))

    @cached_property
    def _bins(self) -> list[np.ndarray]:
        edges = np.linspace(-1, 1, BINS + 1)
        return [np.clip(np.digitize(scores, edges) - 1, 0, BINS - 1) for scores in (self.genuine, self.impostor)]


def _names(thresholds: Sequence[float]) -> list[str]:
    rates = [f"{name} at {each:.3f}" for each in thresholds for name in (MATCHED, MISSED)]
    return [ONE_PERSON, TWO_PEOPLE, EER, *rates]
