"""Metrics by group, and the disparity between groups, with intervals from one bootstrap over all people."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from .intervals import Interval, interval_of, resamples
from .measure import Measured, Row
from .metrics import METRICS, metrics_of
from .scores import scores_of

FEWEST = 5
"""People that a group must have to be compared with others: the intervals of fewer are too narrow."""


@dataclass(frozen=True, kw_only=True)
class GroupFigure:
    """A metric of one group. `by` is what the groups are of: "group", "pose", "face size", …"""

    metric: str
    encoder: str
    by: str
    group: str
    people: int
    figure: Interval


class Disparity(TypedDict):
    """The largest difference of a metric between two groups; it is `certain` if 0 lies outside the interval.

    The two groups are those of the highest and the lowest value. The interval is that of their difference; it does
    not account for the choice of the two.
    """

    metric: str
    title: str
    encoder: str
    by: str
    highest: str
    lowest: str
    value: float
    low: float
    high: float
    certain: bool


def by_group(measured: Measured) -> tuple[list[GroupFigure], list[Disparity]]:
    """The metrics of all groups that the rows name, and the disparities between those of five people or more.

    A group consists of people, or of some pictures of people. Error rates are of its pictures against the photos of
    its people. EER has a threshold of the group; FMR and FNMR are at the threshold of everybody: a system has one.
    """
    people = np.unique([*(row["person"] for row in measured.rows), *measured.gallery])
    weights = resamples(len(people))
    figures: list[GroupFigure] = []
    disparities: list[Disparity] = []
    thresholds = {name: scores.rates(np.ones(len(people))).threshold for name, scores in scores_of(measured).items()}
    for by, groups in groupings(measured.rows).items():
        found: dict[tuple[str, str], dict[str, np.ndarray]] = defaultdict(dict)
        counts: dict[str, int] = {}
        for group in sorted({*groups} - {""}):
            rows = groups == group
            counts[group] = len({row["person"] for row, inside in zip(measured.rows, rows, strict=True) if inside})
            for metric, encoder, values in _samples(measured, rows, people, weights, thresholds):
                if not np.isnan(values[0]):
                    found[metric, encoder][group] = values
        for (metric, encoder), samples in found.items():
            for group, values in samples.items():
                drawn = values if counts[group] > 1 else values[:1]  # one person alone has no interval
                told = {"metric": metric, "encoder": encoder, "by": by, "group": group}
                figures.append(GroupFigure(**told, people=counts[group], figure=interval_of(drawn)))
            compared = {group: values for group, values in samples.items() if counts[group] >= FEWEST}
            if len(compared) > 1:
                disparities.append(_disparity(metric, encoder, by, compared))
    return figures, disparities


def groupings(rows: Sequence[Row]) -> dict[str, np.ndarray]:
    """What groups are of → (rows,), the group of each picture, "" without one; only where there are two groups."""
    found = {
        by: np.array([row["groups"].get(by, "") for row in rows])
        for by in dict.fromkeys(by for row in rows for by in row["groups"])
    }
    return {by: groups for by, groups in found.items() if len({*groups} - {""}) > 1}


def _disparity(metric: str, encoder: str, by: str, samples: dict[str, np.ndarray]) -> Disparity:
    highest, lowest = (choose(samples, key=lambda group: samples[group][0]) for choose in (max, min))
    figure = interval_of(samples[highest] - samples[lowest])
    return Disparity(
        metric=metric,
        title=METRICS[metric].title,
        encoder=encoder,
        by=by,
        highest=highest,
        lowest=lowest,
        value=figure.value,
        low=figure.low,
        high=figure.high,
        certain=bool(figure.low > 0),
    )


def _samples(
    measured: Measured, rows: np.ndarray, people: np.ndarray, weights: np.ndarray, thresholds: dict[str, float]
) -> Iterator[tuple[str, str, np.ndarray]]:
    """Metric, encoder and (draws,) values of some rows, (rows,) booleans, for (draws, people) weights."""
    inside = [row for row, chosen in zip(measured.rows, rows, strict=True) if chosen]
    person = np.searchsorted(people, [row["person"] for row in inside])
    for column in dict.fromkeys(key for row in inside for key in row["values"]):
        values = np.array([row["values"].get(column, np.nan) for row in inside])
        name, _, encoder = column.partition("/")
        yield name, encoder, _means(values, person, weights)
    shown = Counter(measured.gallery)  # people in a picture
    probes = np.repeat(rows, [shown[row["person"]] for row in measured.rows])
    own = np.isin(measured.gallery, people[person])
    for encoder, scores in scores_of(measured).items():
        group = scores.of(probes, own)
        each = [group.rates(draw, thresholds[encoder]) for draw in weights[:, np.isin(people, group.people)]]
        for metric in metrics_of("pairs"):
            yield metric.name, encoder, np.array([metric.compute(rates) for rates in each])


def _means(values: np.ndarray, person: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Means of the pictures' values by draw; NaN for a draw without anybody of the group."""
    exists = ~np.isnan(values)
    sums = np.bincount(person[exists], values[exists], weights.shape[1])
    counts = np.bincount(person[exists], minlength=weights.shape[1])
    with np.errstate(invalid="ignore"):
        return (weights @ sums) / (weights @ counts)
