"""Training runs and evaluation reports, from the folders that were named at the start."""

from __future__ import annotations

import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from PIL import Image

from ..errors import DemoError
from ..evaluation.report import read_report
from ..faces import load_photo

MAX_POINTS = 500
"""Of a curve; more cannot be seen."""

MAX_SHEETS = 6

SUMMARY = ["metric", "encoder", "group", "value", "low", "high"]


class Records:
    """What the tabs on training and evaluation can ask for.

    Args:
        runs: Folders of training runs.
        reports: Folders of evaluation reports.
    """

    def __init__(self, runs: Sequence[Path] = (), reports: Sequence[Path] = ()) -> None:
        self.runs, self.reports = _by_name(runs), _by_name(reports)

    def training(
        self, run: str, metrics: Sequence[str]
    ) -> tuple[pd.DataFrame, list[tuple[Image.Image, str]], list[str]]:
        """Curves of a run (step, value, metric), its newest validation pictures, and all metrics that it knows."""
        folder = _named(self.runs, run, "run")
        table = read_metrics(folder)
        known = [name for name in table.columns if name != "step"]
        curves = [_curve(table, name) for name in known if name in set(metrics)]
        points = pd.concat(curves) if curves else _table([], ["step", "value", "metric"])
        sheets = sorted(folder.rglob("step-*.png"))[-MAX_SHEETS:]
        return points, [(Image.fromarray(load_photo(sheet)), sheet.stem) for sheet in reversed(sheets)], known

    def report(self, report: str) -> tuple[pd.DataFrame, str]:
        """The figures of a report with their intervals, and its page."""
        folder = _named(self.reports, report, "report")
        rows = read_report(folder)["summary"]
        figures = [[row.get("title", row["metric"]), *(row.get(key) for key in SUMMARY[1:])] for row in rows]
        page = folder / "index.html"
        shown = ""
        if page.is_file():  # in a frame without scripts, since it may be anybody's
            text = html.escape(page.read_text(encoding="utf-8"))
            shown = f'<iframe sandbox srcdoc="{text}" style="width: 100%; height: 80vh; border: 0"></iframe>'
        return _table(figures, SUMMARY).round(3), shown


def read_metrics(folder: Path) -> pd.DataFrame:
    """`metrics.jsonl` of a run, a row for each update; raises DemoError if there is none that can be read."""
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        # the last line may be half written
        rows: Any = pd.DataFrame([json.loads(line) for line in lines if line.endswith("\n")])
        return rows.groupby("step", as_index=False).first()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DemoError(f"'{folder.name}' holds no metrics.jsonl that can be read: {error!r}") from error


def _curve(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Means over neighbours, so that there are few enough points."""
    points: Any = pd.DataFrame(
        {"step": table["step"], "value": pd.to_numeric(table[metric], errors="coerce")}
    ).dropna()
    width = -(-len(points) // MAX_POINTS) if len(points) else 1
    points = points.groupby(pd.RangeIndex(len(points)) // width).mean()
    return points.assign(metric=metric)


def _table(rows: Sequence[Any], columns: Any) -> pd.DataFrame:
    return pd.DataFrame(rows, columns=columns)


def _by_name(folders: Sequence[Path]) -> dict[str, Path]:
    """Folders by their last names, by whole paths where those are not enough."""
    names = [folder.resolve().name for folder in folders]
    unique = len(set(names)) == len(names)
    return dict(zip(names if unique else map(str, folders), folders, strict=True))


def _named(folders: dict[str, Path], name: str, kind: str) -> Path:
    if name not in folders:
        raise DemoError(f"There is no {kind} '{name}'; given at the start: {', '.join(folders) or 'none'}.")
    return folders[name]
