"""Two reports side by side, with confidence intervals of the paired differences."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np

from ..errors import EvaluationError
from .intervals import Interval, interval, mean_interval
from .metric import Metric
from .metrics import METRICS, metrics_of
from .report import read_measured, write_comparison
from .scores import Scores, scores_of, yardstick
from .summary import heading


class Difference(TypedDict):
    """A line of a comparison: second minus first. It is `certain` if 0 lies outside the interval. `strangers` (of the
    first report) and `match` are what a similarity is to be compared with, see `Yardstick`; None for other metrics."""

    metric: str
    title: str
    better: str | None
    encoder: str
    first: float
    second: float
    difference: float
    low: float
    high: float
    certain: bool
    strangers: float | None
    match: float | None


def compare(first: Path, second: Path, output: Path) -> list[Difference]:
    """Compare the pictures that two reports share: the same person, prompt and seed.

    Args:
        first: Folder of a report.
        second: Folder of another one.
        output: Folder for `index.html` and `comparison.json`.

    Returns:
        The lines of the comparison, which are also written.

    Raises:
        EvaluationError: A report cannot be read, or they share no picture.
    """
    reports = read_measured(first), read_measured(second)
    rows_a, rows_b = ({(r["person"], r["prompt"], r["seed"]): r for r in report.rows} for report in reports)
    shared = [key for key in rows_a if key in rows_b]
    if not shared:
        raise EvaluationError(f"'{first}' and '{second}' share no picture of the same person, prompt and seed.")
    people = np.array([person for person, _, _ in shared])
    table = []
    for column in rows_a[shared[0]]["values"]:
        a, b = (np.array([rows[key]["values"].get(column, np.nan) for key in shared]) for rows in (rows_a, rows_b))
        both = ~np.isnan(a + b)
        if both.any():
            figure = mean_interval((b - a)[both], people[both])
            name, _, encoder = column.partition("/")
            table.append(_line(METRICS[name], encoder, float(a[both].mean()), float(b[both].mean()), figure))
    scores_a, scores_b = map(scores_of, reports)
    for encoder, a in scores_a.items():
        b = scores_b.get(encoder)
        if b is not None and list(a.probes) == list(b.probes):
            rates = [*metrics_of("pairs"), *metrics_of("utilities")]
            table += [_rate(metric, encoder, a, b) for metric in rates]
    for line in table:
        if METRICS[line["metric"]].similarity:
            line["strangers"], line["match"] = yardstick(line["encoder"], scores_a.get(line["encoder"]))
    table.sort(key=lambda line: list(METRICS).index(line["metric"]))
    write_comparison(output, (str(first), str(second)), table)
    return table


def as_text(table: Sequence[Difference]) -> list[str]:
    """Lines of a comparison for the terminal."""
    names = [heading(line["metric"], line["encoder"]) for line in table]
    width = max(map(len, names), default=0)
    lines = [
        f"{name:<{width}}  {line['first']:.3f} -> {line['second']:.3f}  {line['difference']:+.3f}  "
        f"({line['low']:.3f} to {line['high']:.3f}){' *' if line['certain'] else ''}"
        for name, line in zip(names, table, strict=True)
    ]
    return [*lines, "First -> second, and the difference with its interval; * where the interval does not contain 0."]


def _rate(metric: Metric, encoder: str, a: Scores, b: Scores) -> Difference:
    first, second = a.statistic(metric), b.statistic(metric)
    ones = np.ones(len(a.people))
    figure = interval(lambda weights: second(weights) - first(weights), len(ones))
    return _line(metric, encoder, first(ones), second(ones), figure)


def _line(metric: Metric, encoder: str, first: float, second: float, figure: Interval) -> Difference:
    return Difference(
        metric=metric.name,
        title=metric.title,
        better=metric.better,
        encoder=encoder,
        first=first,
        second=second,
        difference=figure.value,
        low=figure.low,
        high=figure.high,
        certain=bool(figure.low > 0 or figure.high < 0),
        strangers=None,
        match=None,
    )
