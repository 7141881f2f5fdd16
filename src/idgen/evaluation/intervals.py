"""Confidence intervals: percentile bootstrap over people."""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    return interval_of([statistic(weights) for weights in resamples(people, seed)])


def resamples(people: int, seed: int = 0) -> np.ndarray:
    """(1 + RESAMPLES, people): how often each person was drawn. The first row is everybody once, and for one person
    the only one."""
    if people < 2:
        return np.ones((1, people))
    draws = np.random.default_rng(seed).multinomial(people, np.full(people, 1 / people), size=RESAMPLES)
    return np.concatenate([np.ones((1, people)), draws])


def interval_of(values: Sequence[float] | np.ndarray) -> Interval:
    """The interval of a statistic whose values for the rows of `resamples` are known. A value can be NaN: a draw that
    repeats one person has no impostors."""
    draws = np.asarray(values[1:])
    known = draws[~np.isnan(draws)]
    low, high = np.quantile(known, [(1 - LEVEL) / 2, (1 + LEVEL) / 2]) if len(known) else (np.nan, np.nan)
    return Interval(float(values[0]), float(low), float(high))


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
