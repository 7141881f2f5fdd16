"""Two reports side by side, with intervals of the paired difference."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from ..errors import EvaluationError
from .bootstrap import Interval, interval, mean_interval
from .report import read_report, scores_of, write_comparison
from .summary import RATES, TITLES, Scores


def compare(first: Path, second: Path, output: Path) -> list[dict[str, Any]]:
    """Compare the pictures that two reports share: the same person, prompt and seed.

    Returns:
        For each figure: `first`, `second`, `difference` (second minus first), its `low` and `high`, and whether it is
        `certain`: 0 lies outside.

    Raises:
        EvaluationError: A report cannot be read, or they share no picture.
    """
    a, b = read_report(first), read_report(second)
    rows_a, rows_b = ({(r["person"], r["prompt"], r["seed"]): r for r in one["pictures"]} for one in (a, b))
    shared = [key for key in rows_a if key in rows_b]
    if not shared:
        raise EvaluationError(f"'{first}' and '{second}' share no picture of the same person, prompt and seed.")
    persons = np.array([person for person, _, _ in shared])
    table = []
    for column in rows_a[shared[0]]["values"]:
        values = [np.array([_number(rows[key]["values"].get(column)) for key in shared]) for rows in (rows_a, rows_b)]
        both = ~np.isnan(values[0] + values[1])
        if both.any():
            x, y = (one[both] for one in values)
            table.append(_line(column, float(x.mean()), float(y.mean()), mean_interval(y - x, persons[both])))
    scores = scores_of(a), scores_of(b)
    for encoder in scores[0]:
        if encoder in scores[1] and list(scores[0][encoder].probes) == list(scores[1][encoder].probes):
            table += [_rate(name, encoder, scores[0][encoder], scores[1][encoder]) for name in RATES]
    table.sort(key=lambda line: list(TITLES).index(line["metric"]))
    write_comparison(output, (str(first), str(second)), table)
    return table


def _rate(name: str, encoder: str, a: Scores, b: Scores) -> dict[str, Any]:
    first, second = a.rate(name), b.rate(name)
    ones = np.ones(len(a.people))
    figure = interval(lambda weights: second(weights) - first(weights), len(ones))
    return _line(f"{name}/{encoder}", first(ones), second(ones), figure)


def _line(column: str, first: float, second: float, figure: Interval) -> dict[str, Any]:
    metric, _, encoder = column.partition("/")
    told = {"metric": metric, "title": TITLES[metric], "encoder": encoder, "first": first, "second": second}
    certain = bool(figure.low > 0 or figure.high < 0)
    return {**told, "difference": figure.value, "low": figure.low, "high": figure.high, "certain": certain}


def _number(value: float | None) -> float:
    return float("nan") if value is None else value
