"""The distribution of a face encoder's cosine similarities, and thresholds from it."""

from __future__ import annotations

import json
import os
from dataclasses import asdict, dataclass
from functools import cache, cached_property
from importlib.resources import files
from pathlib import Path
from typing import Any, Self
from urllib.parse import quote

import numpy as np

from ..errors import CheckpointError, StatisticsError
from ..files import FilePath, read_json, write_bytes

FORMAT = "idgen-encoder-statistics-1"
_TAIL = np.array([*(m * 10.0**-e for e in (6, 5, 4, 3, 2) for m in (1, 2, 5)), *np.arange(0.1, 0.5, 0.05)])
LEVELS = np.array([*_TAIL, 0.5, *(1 - _TAIL[::-1])])
"""Levels of the stored quantiles, denser at low error rates."""

SUPPORT = 10
"""Minimum of pairs beyond a threshold for an estimate of its rate."""


@dataclass(frozen=True, kw_only=True)
class ScoreDistribution:
    """Cosine similarities of many pairs of faces.

    Attributes:
        mean: Mean of all pairs.
        deviation: Standard deviation.
        quantiles: Quantiles at `LEVELS`.
        pairs: Number of different pairs.

    Raises:
        StatisticsError: The quantiles decrease, or their number is not that of the levels.
    """

    mean: float
    deviation: float
    quantiles: tuple[float, ...]
    pairs: int

    def __post_init__(self) -> None:
        object.__setattr__(self, "quantiles", tuple(self.quantiles))
        if len(self.quantiles) != len(LEVELS) or not (np.diff(self.quantiles) >= 0).all() or not self.deviation > 0:
            raise StatisticsError(
                f"A distribution of scores requires {len(LEVELS)} increasing quantiles and a deviation > 0."
            )

    @classmethod
    def of(cls, scores: np.ndarray, pairs: int | None = None) -> Self:
        """The distribution of (n,) cosines; `pairs` is the number of different pairs, n if not given."""
        return cls(
            mean=float(scores.mean(dtype=np.float64)),
            deviation=float(scores.std(dtype=np.float64)),
            quantiles=tuple(np.quantile(scores, LEVELS).round(6).tolist()),
            pairs=len(scores) if pairs is None else min(pairs, len(scores)),
        )

    def quantile(self, level: float | np.ndarray) -> Any:
        """The cosine below which a fraction `level` of the pairs is; interpolated in log-odds between `LEVELS`."""
        return np.interp(_log_odds(level), _log_odds(LEVELS), self.quantiles)

    def share_above(self, score: float) -> float:
        """The fraction of pairs above a cosine; 0 or 1 beyond the outermost quantiles."""
        if not self.quantiles[0] <= score <= self.quantiles[-1]:
            return float(score < self.quantiles[0])
        odds = np.interp(score, self.quantiles, _log_odds(LEVELS))
        return float(1 / (1 + np.exp(odds)))


@dataclass(frozen=True, eq=False, kw_only=True)
class EncoderStatistics:
    """Statistics of a face encoder, measured on photos of many people.

    Different people have a cosine of about 0.84 with dlib's network and about 0 with ArcFace networks. Thresholds,
    margins and temperatures are therefore derived from the statistics of the encoder.

    Attributes:
        encoder: Name of the encoder, as in `FaceEncoder.name`.
        people: Number of people.
        photos: Number of photos.
        centre: (dim,), mean of the embeddings of unit length, with equal weight for each person.
        length: Median length of the raw embeddings.
        genuine: Cosines of two photos of one person.
        impostor: Cosines of photos of two people.

    Raises:
        StatisticsError: The mean cosine of two people is not below that of one person.
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
                f"With '{self.encoder}' two photos of one person have a mean cosine of {self.genuine.mean:.3f}, "
                f"and two people {self.impostor.mean:.3f}. Check the labels and the encoder."
            )

    def threshold(self, false_match_rate: float = 1e-4) -> float:
        """The cosine that a fraction of the pairs of different people exceeds.

        Raises:
            StatisticsError: The rate is not in (0, 1), or too few pairs were measured for it.
        """
        if not 0 < false_match_rate < 1:
            raise StatisticsError(f"false_match_rate must be between 0 and 1, got {false_match_rate:g}.")
        if false_match_rate * self.impostor.pairs < SUPPORT or false_match_rate < LEVELS[0]:
            raise StatisticsError(
                f"'{self.encoder}' was measured on {self.impostor.pairs:,} pairs of different people, too few for a "
                f"false-match rate of {false_match_rate:g}, at which at least {SUPPORT} of them should match."
            )
        return float(self.impostor.quantile(1 - false_match_rate))

    def false_match_rate(self, threshold: float) -> float:
        """The fraction of pairs of different people above a cosine."""
        return self.impostor.share_above(threshold)

    def false_non_match_rate(self, threshold: float) -> float:
        """The fraction of pairs of one person that is not above a cosine."""
        return 1 - self.genuine.share_above(threshold)

    @cached_property
    def equal_error(self) -> tuple[float, float]:
        """The equal error rate and its threshold."""
        low, high = -1.0, 1.0
        for _ in range(50):
            middle = (low + high) / 2
            low, high = (
                (middle, high) if self.false_match_rate(middle) > self.false_non_match_rate(middle) else (low, middle)
            )
        return (self.false_match_rate(low) + self.false_non_match_rate(low)) / 2, low

    @property
    def gap(self) -> float:
        """Difference of the mean cosines of one person and of different people."""
        return self.genuine.mean - self.impostor.mean

    @property
    def temperature(self) -> float:
        """σ²/gap, with σ² the mean of both variances.

        For two normal distributions with this variance and distance, a difference of cosines divided by the
        temperature is a log-likelihood ratio, as the logits of a softmax over cosines should be.
        """
        return (self.genuine.deviation**2 + self.impostor.deviation**2) / 2 / self.gap

    def save(self, path: FilePath) -> None:
        """Write to a JSON file, atomically."""
        told = {"format": FORMAT, **asdict(self), "centre": [round(float(x), 6) for x in self.centre]}
        write_bytes(path, (json.dumps(told, indent=1) + "\n").encode())

    @classmethod
    def load(cls, path: FilePath) -> Self:
        """Read a file that `save` has written.

        Raises:
            CheckpointError: The file is missing, damaged, or of another format.
        """
        told = read_json(path)
        try:
            if told.pop("format") != FORMAT:
                raise ValueError("its format is another one")
            genuine, impostor = (ScoreDistribution(**told.pop(name)) for name in ("genuine", "impostor"))
            return cls(**told, genuine=genuine, impostor=impostor)
        except (ValueError, KeyError, TypeError, AttributeError, StatisticsError) as error:
            raise CheckpointError(f"'{path}' does not contain the statistics of a face encoder: {error}") from error

    @classmethod
    def of(cls, encoder: str) -> EncoderStatistics:
        """The statistics of an encoder: those that `idgen calibrate` wrote on this machine, or else the package's.

        Raises:
            StatisticsError: There are none of this encoder.
            CheckpointError: The file of `idgen calibrate` is damaged.
        """
        own = statistics_file(encoder)
        return _loaded(own, own.stat().st_mtime_ns) if own.is_file() else cls.packaged(encoder)

    @classmethod
    def packaged(cls, encoder: str) -> EncoderStatistics:
        """The statistics that come with the package: those of the default encoder. Raises StatisticsError."""
        found = files("idgen.faces") / f"{encoder}.json"
        if "/" in encoder or not found.is_file():
            raise StatisticsError(
                f"There are no statistics of '{encoder}'. Measure them on photos of many people (`idgen calibrate`), "
                "or set thresholds and temperatures."
            )
        return _loaded(Path(str(found)), 0)

    @classmethod
    def find(cls, encoder: str) -> EncoderStatistics | None:
        """The same as `of`; None if there are none."""
        try:
            return cls.of(encoder)
        except StatisticsError:
            return None


def statistics_file(encoder: str) -> Path:
    """File to which `idgen calibrate` writes the statistics of an encoder, in `encoders/` in the folder that the
    environment variable `IDGEN_HOME` names, by default `~/.cache/idgen`."""
    home = Path(os.environ.get("IDGEN_HOME") or "~/.cache/idgen").expanduser()
    return home / "encoders" / f"{quote(encoder, safe='')}.json"


@cache
def _loaded(file: Path, changed: int) -> EncoderStatistics:
    """Read once for each time of change."""
    return EncoderStatistics.load(file)


def _log_odds(level: float | np.ndarray) -> Any:
    return np.log(level) - np.log1p(-np.asarray(level))
