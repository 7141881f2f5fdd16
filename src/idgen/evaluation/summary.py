"""Means and error rates with confidence intervals, for all people and by group."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict

import numpy as np

from .by_group import Disparity, by_group
from .intervals import Interval, interval, interval_of, mean_interval, resamples
from .measure import Measured, Row
from .metrics import METRICS, metrics_of
from .scores import Scores, Yardstick, scores_of, yardstick

GROUP_METRICS = ("sim_gt", "sim_ref", "eer", "fmr", "fnmr", "detection")
"""Metrics in the table and the figure of groups."""


class Line(TypedDict):
    """A line of the summary.

    `by` and `group` are empty for all people, `encoder` for metrics without an encoder. `strangers` and `match` are
    what a similarity is to be compared with, see `Yardstick`; None for all other metrics.
    """

    metric: str
    title: str
    better: str | None
    encoder: str
    by: str
    group: str
    people: int
    value: float
    low: float
    high: float
    strangers: float | None
    match: float | None


class Summary(NamedTuple):
    """The lines in the order of `METRICS`, and the disparities between groups."""

    lines: list[Line]
    disparities: list[Disparity]


def summarise(measured: Measured) -> Summary:
    """The summary of a run."""
    scores = scores_of(measured)
    yardsticks = {name: yardstick(name, scores.get(name)) for name in scores}
    people = len({row["person"] for row in measured.rows})
    found = [(metric, encoder, "", "", people, figure) for metric, encoder, figure in _everybody(measured, scores)]
    of_groups, disparities = by_group(measured)
    found += [(each.metric, each.encoder, each.by, each.group, each.people, each.figure) for each in of_groups]
    order = list(METRICS)
    lines = [_line(*figure, yardsticks.get(figure[1])) for figure in found]
    return Summary(
        sorted(lines, key=lambda line: (order.index(line["metric"]), line["by"], line["group"])), disparities
    )


def group_table(summary: Summary, encoder: str) -> list[dict[str, Any]]:
    """The rows of a table of groups: what the groups are of, group, people, and for each of `GROUP_METRICS` by an
    encoder the line, if there is one. The first row is everybody; empty without groups."""
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for line in summary.lines:
        if line["metric"] in GROUP_METRICS and line["encoder"] in ("", encoder):
            told = {"by": line["by"], "group": line["group"], "people": line["people"]}
            rows.setdefault((line["by"], line["group"]), told)[line["metric"]] = line
    return [rows[key] for key in sorted(rows)] if len(rows) > 1 else []


def as_text(summary: Summary) -> list[str]:
    """Lines of the summary for the terminal: all people, and the disparities that are certain."""
    shown = [line for line in summary.lines if not line["group"]]
    names = [heading(line["metric"], line["encoder"]) for line in shown]
    width = max(map(len, names), default=0)
    text = []
    for name, line in zip(names, shown, strict=True):
        beside = str(Yardstick(line["strangers"], line["match"]))
        text.append(f"{name:<{width}}  {line['value']:.3f}{_range(line)}" + (f"  [{beside}]" if beside else ""))
    for line in summary.disparities:
        if line["certain"]:
            text.append(
                f"By {line['by']}: {heading(line['metric'], line['encoder'])} of '{line['highest']}' exceeds that of "
                f"'{line['lowest']}' by {line['value']:.3f}{_range(line)}"
            )
    return text


def heading(metric: str, encoder: str) -> str:
    """Name of a metric with the direction that is better, and the face encoder."""
    return METRICS[metric].heading + (f" by {encoder}" if encoder else "")


def _range(line: Line | Disparity) -> str:
    return "" if np.isnan(line["low"]) else f"  ({line['low']:.3f} to {line['high']:.3f})"


def _everybody(measured: Measured, scores: dict[str, Scores]) -> list[tuple[str, str, Interval]]:
    """Metric, encoder and figure of all people."""
    found = _means(measured.rows)
    for encoder, of_encoder in scores.items():
        rates = [of_encoder.rates(weights) for weights in resamples(len(of_encoder.people))]
        figures = {
            metric.name: interval_of([metric.compute(each) for each in rates]) for metric in metrics_of("pairs")
        }
        for metric in metrics_of("utilities"):
            figures[metric.name] = interval(of_encoder.statistic(metric), len(of_encoder.people))
        found += [(name, encoder, figure) for name, figure in figures.items() if not np.isnan(figure.value)]
    if measured.features is not None and min(map(len, measured.features)) > 1:
        for metric in metrics_of("features"):
            value = float(metric.compute(*measured.features))
            found.append((metric.name, "", Interval(value, float("nan"), float("nan"))))
    return found


def _means(rows: Sequence[Row]) -> list[tuple[str, str, Interval]]:
    people = np.array([row["person"] for row in rows])
    found = []
    for column in dict.fromkeys(key for row in rows for key in row["values"]):
        values = np.array([row["values"].get(column, np.nan) for row in rows])
        if not np.isnan(values).all():
            name, _, encoder = column.partition("/")
            found.append((name, encoder, mean_interval(values, people)))
    return found


def _line(
    metric: str, encoder: str, by: str, group: str, people: int, figure: Interval, beside: Yardstick | None
) -> Line:
    shown = beside if beside is not None and METRICS[metric].similarity else Yardstick(None, None)
    return Line(
        metric=metric,
        title=METRICS[metric].title,
        better=METRICS[metric].better,
        encoder=encoder,
        by=by,
        group=group,
        people=people,
        value=figure.value,
        low=figure.low,
        high=figure.high,
        strangers=shown.strangers,
        match=shown.match,
    )
