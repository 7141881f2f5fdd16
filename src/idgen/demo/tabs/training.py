"""Curves and validation images of training runs, updated while a run goes on."""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import gradio as gr
import pandas as pd
from PIL import Image

from ...errors import DemoError
from ...faces import load_photo
from ..backend import Backend, named_folder
from ..components import image_gallery
from ..page import Page

SECONDS = 15
"""Seconds between two updates of the page."""

DEFAULT_METRICS = ["loss"]

Run: TypeAlias = "tuple[pd.DataFrame, list[tuple[Image.Image, str]], list[str]]"
"""Curves (step, value, metric), the newest validation images with captions, and the names of all metrics."""

MAX_POINTS = 500
"""Maximum points of a curve; more of them cannot be distinguished."""

MAX_SHEETS = 6
"""Maximum validation images."""


def build(page: Page, tab: gr.Tab) -> None:
    """Build the tab."""
    names = list(page.backend.runs)
    with gr.Row():
        run = gr.Dropdown(names, value=names[0], label="Run")
        metrics = gr.Dropdown(
            DEFAULT_METRICS, value=DEFAULT_METRICS, label="Metrics", multiselect=True, allow_custom_value=True
        )
    plot = gr.LinePlot(x="step", y="value", color="metric", label="Curves", show_label=False, height=340)
    sheets = image_gallery(columns=1, label="Validation images, newest first")
    known = gr.JSON(visible=False, label="metrics")
    timer = gr.Timer(SECONDS)
    updates = partial(gr.on, [tab.select, run.change, metrics.change, timer.tick])
    shown = page.api(updates, training, [run, metrics], [plot, sheets, known], show_progress="hidden")
    shown.then(lambda known: gr.Dropdown(choices=known), known, metrics, api_visibility="private")


def training(backend: Backend, run: str, metrics: Sequence[str]) -> Run:
    """Show a run that was named at the start."""
    return read_run(named_folder(backend.runs, run, "run"), metrics)


def read_run(folder: Path, metrics: Sequence[str]) -> Run:
    """Read the folder of a run; raises DemoError if its metrics cannot be read."""
    table = read_metrics(folder)
    known = [name for name in table.columns if name != "step"]
    curves = [_curve(table, name) for name in known if name in set(metrics)]
    points = pd.concat(curves) if curves else pd.DataFrame({"step": [], "value": [], "metric": []})
    sheets = sorted(folder.rglob("step-*.png"))[-MAX_SHEETS:]
    return points, [(Image.fromarray(load_photo(sheet)), sheet.stem) for sheet in reversed(sheets)], known


def read_metrics(folder: Path) -> pd.DataFrame:
    """`metrics.jsonl` of a run with a row for each update; raises DemoError if it cannot be read."""
    try:
        lines = (folder / "metrics.jsonl").read_text(encoding="utf-8").splitlines(keepends=True)
        # the last line may be half written
        rows = pd.DataFrame([json.loads(line) for line in lines if line.endswith("\n")])
        return rows.groupby("step", as_index=False).first()
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DemoError(f"'{folder.name}' holds no metrics.jsonl that can be read: {error!r}") from error


def _curve(table: pd.DataFrame, metric: str) -> pd.DataFrame:
    """A metric over the steps, averaged over neighbours so that there are at most `MAX_POINTS`."""
    values = pd.to_numeric(table[metric], errors="coerce")
    points: Any = pd.DataFrame({"step": table["step"], "value": values}).dropna()
    width = max(-(-len(points) // MAX_POINTS), 1)
    return points.groupby(pd.RangeIndex(len(points)) // width).mean().assign(metric=metric)
