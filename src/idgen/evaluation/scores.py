"""Cosines of pictures to real people, and the error rates and similarities of strangers that they give."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import numpy as np

from ..faces import EncoderStatistics
from .error_rates import FMR_TARGET, ErrorRates, PairScores, utilities
from .measure import Measured
from .metric import Metric

MISSED = -1.0
"""Score of a face that was not found."""


@dataclass(frozen=True, eq=False)
class Scores:
    """Cosines of pictures to real people, by one encoder.

    Attributes:
        scores: (probes, gallery).
        genuine: (probes, gallery), whether both are the same person.
        probes: (probes,), the person that each picture shows.
        gallery: (gallery,), names of the real people.
    """

    scores: np.ndarray
    genuine: np.ndarray
    probes: np.ndarray
    gallery: np.ndarray

    @cached_property
    def people(self) -> np.ndarray:
        """All names, sorted: what the weights of `statistic` are for."""
        return np.unique(self.gallery)

    def statistic(self, metric: Metric) -> Callable[[np.ndarray], float]:
        """A metric as function of (people,) weights. In error rates, a pair of two people has the product of their
        weights; a person's utilities have that of the person."""
        if metric.reads == "utilities":
            utility = self.utilities
            return lambda weights: float("nan") if utility is None else float(metric.compute(utility, weights))
        return lambda weights: float(metric.compute(self.rates(weights)))

    def rates(self, weights: np.ndarray, threshold: float | None = None) -> ErrorRates:
        """The error rates with (people,) weights; see `PairScores`."""
        probe, gallery = self._numbers
        pairs = np.where(self._own, weights[probe][:, None], np.outer(weights[probe], weights[gallery]))
        return self._pairs(pairs.ravel(), threshold)

    def of(self, probes: np.ndarray, gallery: np.ndarray) -> Scores:
        """The scores of some pictures, (probes,) booleans, against some people, (gallery,) booleans."""
        inside = np.ix_(probes, gallery)
        return Scores(self.scores[inside], self.genuine[inside], self.probes[probes], self.gallery[gallery])

    @cached_property
    def _pairs(self) -> PairScores:
        return PairScores(self.scores.ravel(), self.genuine.ravel())

    @cached_property
    def _numbers(self) -> tuple[np.ndarray, np.ndarray]:
        return np.searchsorted(self.people, self.probes), np.searchsorted(self.people, self.gallery)

    @cached_property
    def _own(self) -> np.ndarray:
        return self.probes[:, None] == self.gallery

    @property
    def utilities(self) -> np.ndarray | None:
        """(people, thresholds), see `error_rates.utilities`; None if a person lacks genuine or impostor pairs."""
        rows = [self.probes == person for person in self.people]
        genuine = [self.genuine[row].ravel() for row in rows]
        if not all(same.any() and not same.all() for same in genuine):
            return None
        return utilities([self.scores[row].ravel() for row in rows], genuine)

    @property
    def strangers(self) -> float | None:
        """Mean cosine of pictures to real photos of other people, 0 for a missed face; None for a single person."""
        impostor = self.scores[~self._own]
        return float(np.where(impostor == MISSED, 0, impostor).mean()) if len(impostor) else None


def scores_of(measured: Measured) -> dict[str, Scores]:
    """The scores of a run, by encoder."""
    names = np.array(measured.probes), np.array(measured.gallery)
    return {name: Scores(scores, measured.genuine, *names) for name, scores in measured.scores.items()}


class Yardstick(NamedTuple):
    """What a similarity by an encoder is to be compared with; None where it is not known.

    Attributes:
        strangers: Mean similarity of strangers.
        match: Threshold for the same person, which one in 1,000 pairs of strangers exceeds.
    """

    strangers: float | None
    match: float | None

    def __str__(self) -> str:
        named = zip(("strangers", "threshold"), self, strict=True)
        return ", ".join(f"{name} {value:.3f}" for name, value in named if value is not None)


def yardstick(encoder: str, scores: Scores | None = None) -> Yardstick:
    """The yardstick of an encoder: strangers as the scores of a run show them, or else by the encoder's statistics,
    and the threshold of those statistics, or else of the run if it has enough pairs of strangers."""
    statistics = EncoderStatistics.find(encoder)
    strangers = None if scores is None else scores.strangers
    if statistics is not None:
        return Yardstick(
            statistics.impostor.mean if strangers is None else strangers, statistics.threshold(FMR_TARGET)
        )
    if scores is None or (~scores.genuine).sum() * FMR_TARGET < 1:
        return Yardstick(strangers, None)
    return Yardstick(strangers, scores.rates(np.ones(len(scores.people))).threshold)


def beside_strangers(encoder: str) -> str:
    """What a similarity by an encoder is to be compared with, as the end of a sentence; empty without statistics."""
    statistics = EncoderStatistics.find(encoder)
    if statistics is None:
        return ""
    return (
        f": two photos of one person have {statistics.genuine.mean:.3f} on average, two strangers "
        f"{statistics.impostor.mean:.3f}; only one pair of strangers in {1 / FMR_TARGET:,.0f} exceeds "
        f"{statistics.threshold(FMR_TARGET):.3f}, the threshold for the same person"
    )
