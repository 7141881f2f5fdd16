"""Confidence intervals: percentile bootstrap over people."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

RESAMPLES, LEVEL = 1000, 0.95


@dataclass(frozen=True)
class Interval:
    """A value and its 95 % interval; `low` and `high` are NaN if there is only one person."""

    value: float
    low: float
    high: float


def interval(statistic: Callable[[np.ndarray], float], people: int, seed: int = 0) -> Interval:
    """Percentile bootstrap (Efron 1979) that resamples people, not pictures.

    Pictures of one person resemble each other: resampling pictures would make intervals too narrow.

    Args:
        statistic: (people,) weights, how often each person was drawn → the value.
        people: Number of people.
        seed: Seed of the draws. The same seed draws the same people, so intervals are comparable.
    """
    value = statistic(np.ones(people))
    if people < 2:
        return Interval(value, float("nan"), float("nan"))
    random = np.random.default_rng(seed)
    draws = random.multinomial(people, np.full(people, 1 / people), size=RESAMPLES)
    figures = np.array([statistic(draw) for draw in draws])
    figures = figures[~np.isnan(figures)]  # a draw that repeats one person has no impostors
    low, high = np.quantile(figures, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(figures) else (np.nan, np.nan)
    return Interval(value, float(low), float(high))


def mean_interval(values: np.ndarray, persons: np.ndarray) -> Interval:
    """Mean over pictures, with an interval over people.

    Args:
        values: (n,); NaN where a metric does not exist for a picture (not where a face was missed).
        persons: (n,), the person that each picture shows.
    """
    exists = ~np.isnan(values)
    if not exists.any():
        return Interval(float("nan"), float("nan"), float("nan"))
    _, index = np.unique(persons[exists], return_inverse=True)
    sums, counts = np.bincount(index, values[exists]), np.bincount(index)
    return interval(lambda weights: float(weights @ sums / (weights @ counts)), len(sums))
