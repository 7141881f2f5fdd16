"""Means and error rates with confidence intervals, for all people and by group."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

import numpy as np

from .error_rates import PairScores, utilities
from .intervals import Interval, interval, mean_interval
from .measure import Measured, Row
from .metric import Metric
from .metrics import METRICS, metrics_of


class Line(TypedDict):
    """A line of the summary; `group` is empty for all people, `encoder` for metrics without an encoder."""

    metric: str
    title: str
    better: str | None
    encoder: str
    group: str
    value: float
    low: float
    high: float


@dataclass(frozen=True)
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

    @property
    def people(self) -> np.ndarray:
        """All names, sorted: what the weights of `statistic` are for."""
        return np.unique(self.gallery)

    def statistic(self, metric: Metric) -> Callable[[np.ndarray], float]:
        """A metric as function of (people,) weights. In error rates, a pair of two people has the product of their
        weights; a person's utilities have that of the person."""
        if metric.reads == "utilities":
            utility = self.utilities
            return lambda weights: float("nan") if utility is None else float(metric.compute(utility, weights))
        rates = PairScores(self.scores.ravel(), self.genuine.ravel())
        probe, gallery = (np.searchsorted(self.people, names) for names in (self.probes, self.gallery))
        own = probe[:, None] == gallery

        def value(weights: np.ndarray) -> float:
            pairs = np.where(own, weights[probe][:, None], np.outer(weights[probe], weights[gallery]))
            return float(metric.compute(rates(pairs.ravel())))

        return value

    @property
    def utilities(self) -> np.ndarray | None:
        """(people, thresholds), see `error_rates.utilities`; None if a person lacks genuine or impostor pairs."""
        rows = [self.probes == person for person in self.people]
        genuine = [self.genuine[row].ravel() for row in rows]
        if not all(same.any() and not same.all() for same in genuine):
            return None
        return utilities([self.scores[row].ravel() for row in rows], genuine)


def scores_of(measured: Measured) -> dict[str, Scores]:
    """The scores of a run, by encoder."""
    names = np.array(measured.probes), np.array(measured.gallery)
    return {name: Scores(scores, measured.genuine, *names) for name, scores in measured.scores.items()}


def summarise(measured: Measured) -> list[Line]:
    """The summary of a run, in the order of `METRICS`."""
    rows = measured.rows
    groups = sorted({row["group"] for row in rows} - {""})
    table = []
    for group in ["", *(groups if len(groups) > 1 else [])]:  # a single group is everyone
        table += _means([row for row in rows if group in ("", row["group"])], group)
    for encoder, scores in scores_of(measured).items():
        for metric in [*metrics_of("pairs"), *metrics_of("utilities")]:
            rate = interval(scores.statistic(metric), len(scores.people))
            if not np.isnan(rate.value):
                table.append(_line(metric, encoder, "", rate))
    if measured.features is not None and min(map(len, measured.features)) > 1:
        for metric in metrics_of("features"):
            value = float(metric.compute(*measured.features))
            table.append(_line(metric, "", "", Interval(value, float("nan"), float("nan"))))
    order = list(METRICS)
    return sorted(table, key=lambda line: (order.index(line["metric"]), line["group"]))


def as_text(table: Sequence[Line]) -> list[str]:
    """Lines of the summary for the terminal, all people only."""
    shown = [line for line in table if not line["group"]]
    names = [METRICS[line["metric"]].heading + (f" by {line['encoder']}" if line["encoder"] else "") for line in shown]
    width = max(map(len, names), default=0)
    return [
        f"{name:<{width}}  {line['value']:.3f}"
        + ("" if np.isnan(line["low"]) else f"  ({line['low']:.3f} to {line['high']:.3f})")
        for name, line in zip(names, shown, strict=True)
    ]


def _means(rows: Sequence[Row], group: str) -> list[Line]:
    people = np.array([row["person"] for row in rows])
    lines = []
    for column in dict.fromkeys(key for row in rows for key in row["values"]):
        values = np.array([row["values"].get(column, np.nan) for row in rows])
        if not np.isnan(values).all():
            name, _, encoder = column.partition("/")
            lines.append(_line(METRICS[name], encoder, group, mean_interval(values, people)))
    return lines


def _line(metric: Metric, encoder: str, group: str, figure: Interval) -> Line:
    return Line(
        metric=metric.name,
        title=metric.title,
        better=metric.better,
        encoder=encoder,
        group=group,
        value=figure.value,
        low=figure.low,
        high=figure.high,
    )
