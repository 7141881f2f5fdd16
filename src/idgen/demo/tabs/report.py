"""Figures and pages of evaluation reports."""

from __future__ import annotations

import html
from functools import partial
from pathlib import Path

import gradio as gr
import pandas as pd

from ...evaluation.report import read_report
from ..backend import Backend, named_folder
from ..page import Page

COLUMNS = ["metric", "encoder", "group", "value", "low", "high"]


def build(page: Page, tab: gr.Tab) -> None:
    """Build the tab."""
    names = list(page.backend.reports)
    name = gr.Dropdown(names, value=names[0], label="Report")
    figures = gr.Dataframe(
        headers=COLUMNS,
        interactive=False,
        label="Figures with 95 % intervals",
        wrap=True,
        column_widths=["34%", "24%", "12%", "10%", "10%", "10%"],
    )
    shown = gr.HTML(label="Page")
    page.api(partial(gr.on, [tab.select, name.change]), report, [name], [figures, shown])


def report(backend: Backend, report: str) -> tuple[pd.DataFrame, str]:
    """Show a report that was named at the start."""
    return read_figures(named_folder(backend.reports, report, "report"))


def read_figures(folder: Path) -> tuple[pd.DataFrame, str]:
    """The figures of a report with their intervals, and its page as HTML."""
    rows = read_report(folder)["summary"]
    figures = [[row.get("title", row["metric"]), *(row.get(key) for key in COLUMNS[1:])] for row in rows]
    file = folder / "index.html"
    frame = ""
    if file.is_file():  # in a frame without scripts: anybody may have written it
        text = html.escape(file.read_text(encoding="utf-8"))
        frame = f'<iframe sandbox srcdoc="{text}" style="width: 100%; height: 80vh; border: 0"></iframe>'
    return pd.DataFrame(figures, columns=COLUMNS).round(3), frame
