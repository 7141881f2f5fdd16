"""How the cosines of a face encoder lie, and the thresholds that follow."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from importlib.resources import files
from typing import Any, Self

import numpy as np

from ..errors import CheckpointError, StatisticsError
from ..files import FilePath, read_json, write_bytes

FORMAT = "idgen-encoder-statistics-1"
_TAIL = np.array([*(m * 10.0**-e for e in (6, 5, 4, 3, 2) for m in (1, 2, 5)), *np.arange(0.1, 0.5, 0.05)])
LEVELS = np.array([*_TAIL, 0.5, *(1 - _TAIL[::-1])])
"""Levels of the quantiles that are kept: denser where thresholds for low error rates lie."""

SUPPORT = 10
"""A tail of fewer pairs than this says nothing about a rate."""


@dataclass(frozen=True, kw_only=True)
class ScoreDistribution:
    """Cosines of many pairs of faces.

    Attributes:
        mean: Of all pairs.
        deviation: Standard deviation.
        quantiles: At `LEVELS`.
        pairs: How many different pairs there were.

    Raises:
        StatisticsError: The quantiles do not rise, or are not as many as the levels.
    """

    mean: float
    deviation: float
    quantiles: tuple[float, ...]
    pairs: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "quantiles", tuple(self.quantiles))
        if len(self.quantiles) != len(LEVELS) or not (np.diff(self.quantiles) >= 0).all() or not self.deviation > 0:
            raise StatisticsError(
                f"A distribution of scores needs {len(LEVELS)} quantiles that rise and a deviation above 0."
            )

    @classmethod
    def of(cls, scores: np.ndarray, pairs: int | None = None) -> Self:
        """Of (n,) cosines; `pairs` is how many of them are of different pairs, all if not given."""
        return cls(
            mean=float(scores.mean(dtype=np.float64)),
            deviation=float(scores.std(dtype=np.float64)),
            quantiles=tuple(np.quantile(scores, LEVELS).round(6).tolist()),
            pairs=len(scores) if pairs is None else min(pairs, len(scores)),
        )

    def quantile(self, level: float | np.ndarray) -> Any:
        """The cosine that a share `level` of the pairs lie below; between `LEVELS` interpolated in their log-odds."""
        return np.interp(_log_odds(level), _log_odds(LEVELS), self.quantiles)

    def share_above(self, score: float) -> float:
        """The share of the pairs above a cosine; 0 or 1 beyond the outermost quantiles."""
        if not self.quantiles[0] <= score <= self.quantiles[-1]:
            return float(score < self.quantiles[0])
        odds = np.interp(score, self.quantiles, _log_odds(LEVELS))
        return float(1 / (1 + np.exp(odds)))


@dataclass(frozen=True, eq=False, kw_only=True)
class EncoderStatistics:
    """A face encoder's space, measured on photos of many people.

    Encoders differ: strangers have a cosine of about 0.84 by dlib's network and about 0 by ArcFace's. Thresholds,
    margins and temperatures that fit one mean nothing for another, so they are derived from here.

    Attributes:
        encoder: Name of the encoder, as in `FaceEncoder.name`.
        people: How many people were measured.
        photos: How many photos of them.
        centre: (dim,), the mean of the embeddings of unit length; every person counts the same.
        length: Median length of the raw embeddings.
        genuine: Cosines of two photos of one person.
        impostor: Cosines of photos of two people.

    Raises:
        StatisticsError: The encoder does not tell people apart: strangers are as alike as photos of one person.
    """

    encoder: str
    people: int
    photos: int
    centre: np.ndarray
    length: float
    genuine: ScoreDistribution
    impostor: ScoreDistribution

    def __post_init__(self) -> None:
        object.__setattr__(self, "centre", np.asarray(self.centre, np.float32))
        if self.genuine.mean <= self.impostor.mean:
            raise StatisticsError(
                f"By '{self.encoder}' two photos of one person have a mean cosine of {self.genuine.mean:.3f}, "
                f"those of two people {self.impostor.mean:.3f}: check the labels and the encoder."
            )

    def threshold(self, false_match_rate: float = 1e-4) -> float:
        """The cosine that a share of the pairs of strangers exceed.

        Raises:
            StatisticsError: The rate is not in (0, 1), or too few pairs were measured for it.
        """
        if not 0 < false_match_rate < 1:
            raise StatisticsError(f"A false-match rate lies between 0 and 1, not at {false_match_rate:g}.")
        if false_match_rate * self.impostor.pairs < SUPPORT or false_match_rate < LEVELS[0]:
            raise StatisticsError(
                f"'{self.encoder}' was measured on {self.impostor.pairs:,} pairs of strangers, too few for a "
                f"false-match rate of {false_match_rate:g}: at least {SUPPORT} of them should match."
            )
        return float(self.impostor.quantile(1 - false_match_rate))

    def false_match_rate(self, threshold: float) -> float:
        """The share of the pairs of strangers above a cosine."""
        return self.impostor.share_above(threshold)

    def false_non_match_rate(self, threshold: float) -> float:
        """The share of the pairs of one person that are not above a cosine."""
        return 1 - self.genuine.share_above(threshold)

    @cached_property
    def equal_error(self) -> tuple[float, float]:
        """The rate at which both errors are equal, and the cosine of it."""
        low, high = -1.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (
                (middle, high) if self.false_match_rate(middle) > self.false_non_match_rate(middle) else (low, middle)
            )
        return (self.false_match_rate(low) + self.false_non_match_rate(low)) / 2, low

    @property
    def gap(self) -> float:
        """By how much one person's photos are more alike than strangers' in the mean."""
        return self.genuine.mean - self.impostor.mean

    @property
    def temperature(self) -> float:
        """σ²/gap, with σ² the mean of both variances.

        For two normal distributions of this variance and distance, a difference of cosines divided by it is a
        log-likelihood ratio, which is what a softmax over cosines takes its logits for.
        """
        return (self.genuine.deviation**2 + self.impostor.deviation**2) / 2 / self.gap

    def save(self, path: FilePath) -> None:
        """Write to a JSON file, whole or not at all."""
        told = {"format": FORMAT, **asdict(self), "centre": [round(float(x), 6) for x in self.centre]}
        write_bytes(path, (json.dumps(told, indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: FilePath) -> Self:
        """Read what `save` wrote.

        Raises:
            CheckpointError: The file is missing, damaged, or something else.
        """
        told = read_json(path)
        try:
            if told.pop("format") != FORMAT:
                raise ValueError("its format is another one")
            genuine, impostor = (ScoreDistribution(**told.pop(name)) for name in ("genuine", "impostor"))
            return cls(**told, genuine=genuine, impostor=impostor)
        except (ValueError, KeyError, TypeError, AttributeError, StatisticsError) as error:
            raise CheckpointError(f"'{path}' does not hold the statistics of a face encoder: {error}") from error

    @classmethod
    def of(cls, encoder: str) -> EncoderStatistics:
        """What the package knows of an encoder: that of the default one.

        Raises:
            StatisticsError: It knows nothing of this one.
        """
        return _packaged(encoder)


@cache
def _packaged(encoder: str) -> EncoderStatistics:
    found = files("idgen.faces") / f"{encoder}.json"
    if "/" in encoder or not found.is_file():
        raise StatisticsError(
            f"There are no statistics of '{encoder}': measure them on photos of many people "
            "(`idgen.data.statistics.measure`), or give thresholds and temperatures yourself."
        )
    return EncoderStatistics.load(str(found))


def _log_odds(level: float | np.ndarray) -> Any:
    return np.log(level) - np.log1p(-np.asarray(level))
