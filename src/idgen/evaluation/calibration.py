"""`idgen calibrate`: how a face encoder's similarities lie on photos of many people, and how sure that is."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from tempfile import TemporaryDirectory
from typing import Any, NamedTuple

import numpy as np

from ..data.assign import AssignOptions
from ..data.cache import write_caches
from ..data.clustering import unit
from ..data.engines import LocalProcesses
from ..data.manifest import NAME, Manifest
from ..data.prepare import PrepareOptions, prepare
from ..data.statistics import NamedFaces, cosines_of, genuine_pairs, impostor_pairs, measure, named_faces
from ..data.storage import exists, join
from ..faces import EncoderStatistics, register_encoder
from .intervals import Interval, interval

PAIRS, BINS = 200_000, 4000
EVERYBODY = "everybody"


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
    """The similarities of a group of people, with 95 % intervals over people.

    Attributes:
        group: Name of the group.
        people: Number of people.
        genuine: Mean cosine of two photos of one person.
        impostor: Mean cosine of photos of two people of the group.
        equal_error: Equal error rate.
        rates: One for each false-match rate that was asked for.
    """

    group: str
    people: int
    genuine: Interval
    impostor: Interval
    equal_error: Interval
    rates: tuple[Rates, ...]


class Calibrated(NamedTuple):
    """The statistics of an encoder, and what they are worth: for everybody first, then for each group."""

    statistics: EncoderStatistics
    groups: list[Similarities]


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
    """Measure one encoder; raises StatisticsError if there are too few people."""
    statistics = measure(faces.encoder, faces.embeddings, faces.labels)
    thresholds = [statistics.threshold(rate) for rate in rates]
    group = np.array([name or "" for name in faces.groups], dtype=object)
    units = unit(faces.embeddings)
    found = [_similarities(EVERYBODY, units, faces.labels, np.ones(len(group), bool), thresholds)]
    for name in sorted({*group} - {""}):
        found.append(_similarities(name, units, faces.labels, group == name, thresholds))
    return Calibrated(statistics, found)


def _similarities(
    name: str, units: np.ndarray, labels: np.ndarray, of_group: np.ndarray, thresholds: Sequence[float]
) -> Similarities:
    """The similarities within a group of people, (people,) booleans."""
    numbers = np.where(of_group, np.cumsum(of_group) - 1, -1)
    inside = numbers[labels]  # of the person in the group
    people = int(of_group.sum())
    same, (first, second) = genuine_pairs(inside, PAIRS), impostor_pairs(inside, PAIRS)
    genuine, impostor = cosines_of(units, *same), cosines_of(units, first, second)
    one, a, b = inside[same[0]], inside[first], inside[second]

    def mean(genuine_values: np.ndarray, impostor_values: np.ndarray) -> tuple[Interval, Interval]:
        # of the pairs that each person, or pair of people, has; people are drawn with these weights
        own = np.bincount(one, genuine_values, people), np.bincount(one, minlength=people)
        return (
            interval(lambda w: _ratio(w @ own[0], w @ own[1]), people),
            interval(lambda w: _ratio((pairs := w[a] * w[b]) @ impostor_values, pairs.sum()), people),
        )

    means = mean(genuine, impostor)
    at = []
    for threshold in thresholds:
        missed, matched = mean((genuine <= threshold).astype(float), (impostor > threshold).astype(float))
        at.append(Rates(threshold=threshold, false_match=matched, missed=missed))
    edges = np.linspace(-1, 1, BINS + 1)
    bins = [np.clip(np.digitize(scores, edges) - 1, 0, BINS - 1) for scores in (genuine, impostor)]

    def equal_error(weights: np.ndarray) -> float:
        below, others = np.bincount(bins[0], weights[one], BINS), np.bincount(bins[1], weights[a] * weights[b], BINS)
        if not below.sum() or not others.sum():
            return float("nan")
        missed, matched = below.cumsum() / below.sum(), 1 - others.cumsum() / others.sum()
        nearest = np.abs(missed - matched).argmin()
        return float(missed[nearest] + matched[nearest]) / 2

    return Similarities(
        group=name,
        people=people,
        genuine=means[0],
        impostor=means[1],
        equal_error=interval(equal_error, people),
        rates=tuple(at),
    )


def _ratio(part: Any, whole: Any) -> float:
    """Of two numbers."""
    return float(part / whole) if whole else float("nan")
