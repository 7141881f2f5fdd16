"""Rows of figures → means and error rates with intervals, for all and by group."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from ..errors import EvaluationError
from .bootstrap import Interval, interval, mean_interval
from .separability import ErrorRates

TITLES = {
    "sim_gt": "Sim(GT)",
    "sim_ref": "Sim(Ref)",
    "copy_paste": "Copy-Paste",
    "real": "cos(reference, target), the photos themselves",
    "blending": "Identity blending",
    "between": "Similarity between different people's pictures",
    "eer": "EER",
    "fmr": "FMR at 1e-3",
    "fnmr": "FNMR at FMR 1e-3",
    "detection": "Detection rate",
    "diversity": "Diversity of a person's faces",
    "prompt": "Prompt fidelity",
    "disruption": "Disruption",
    "clip_i": "CLIP-I to the picture without identity",
    "fid": "Fréchet distance",
    "seconds": "Seconds a picture",
}
"""Metric → what the report calls it, in its order."""

RATES = ("eer", "fmr", "fnmr")


def check_titles(metrics: Iterable[str]) -> None:
    """Refuse metrics that the report could not name.

    Raises:
        EvaluationError: A metric has no title.
    """
    if unknown := sorted({*metrics, *RATES} - TITLES.keys()):
        raise EvaluationError(
            f"The report has no title for {', '.join(unknown)}: add one to idgen.evaluation.summary.TITLES."
        )


@dataclass(frozen=True)
class Scores:
    """Scores of pictures against real people, by one encoder.

    Attributes:
        scores: (probes, gallery).
        genuine: (probes, gallery).
        probes: (probes,), whose picture each is.
        gallery: (gallery,).
    """

    scores: np.ndarray
    genuine: np.ndarray
    probes: np.ndarray
    gallery: np.ndarray

    @property
    def people(self) -> np.ndarray:
        """Names of all, sorted: what weights stand for."""
        return np.unique(self.gallery)

    def rate(self, name: str) -> Callable[[np.ndarray], float]:
        """One of `RATES` as a statistic of (people,) weights: a pair of two is there as often as both together."""
        rates = ErrorRates(self.scores.ravel(), self.genuine.ravel())
        probe, gallery = (np.searchsorted(self.people, who) for who in (self.probes, self.gallery))
        own = probe[:, None] == gallery

        def statistic(weights: np.ndarray) -> float:
            pairs = np.where(own, weights[probe][:, None], np.outer(weights[probe], weights[gallery]))
            return getattr(rates(pairs.ravel()), name)

        return statistic


def summarise(rows: list[dict[str, Any]], scores: dict[str, Scores]) -> list[dict[str, Any]]:
    """(metric, encoder, group) → value, low and high. The group "" is everybody.

    Raises:
        EvaluationError: A row has a metric without a title.
    """
    check_titles(key.partition("/")[0] for row in rows for key in row["values"])
    groups = sorted({row["group"] for row in rows} - {""})
    groups = groups if len(groups) > 1 else []  # one group is everybody
    table = []
    for group in ["", *groups]:
        chosen = [row for row in rows if group in ("", row["group"])]
        for column in dict.fromkeys(key for row in chosen for key in row["values"]):
            values = np.array([row["values"].get(column, np.nan) for row in chosen])
            if not np.isnan(values).all():
                persons = np.array([row["person"] for row in chosen])
                table.append(_line(column, group, mean_interval(values, persons)))
    for encoder, one in scores.items():
        for name in RATES:
            rate = interval(one.rate(name), len(one.people))
            if not np.isnan(rate.value):
                table.append(_line(f"{name}/{encoder}", "", rate))
    order = list(TITLES)
    return sorted(table, key=lambda line: (order.index(line["metric"]), line["group"]))


def _line(column: str, group: str, figure: Interval) -> dict[str, Any]:
    metric, _, encoder = column.partition("/")
    told = {"metric": metric, "title": TITLES[metric], "encoder": encoder, "group": group}
    return {**told, "value": figure.value, "low": figure.low, "high": figure.high}
