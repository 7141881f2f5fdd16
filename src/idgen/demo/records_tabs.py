"""The tabs that show what training and evaluation wrote."""

from __future__ import annotations

from functools import partial

import gradio as gr

from .records import SUMMARY, Records
from .wiring import Wiring

SECONDS = 15
"""Between two looks at a run that goes on."""

FIRST_METRICS = ["loss"]


def training_tab(wiring: Wiring, records: Records, tab: gr.Tab) -> None:
    """Curves and pictures of a run, that grow while it goes on."""
    names = list(records.runs)
    with gr.Row():
        run = gr.Dropdown(names, value=names[0], label="Run")
        metrics = gr.Dropdown(
            FIRST_METRICS, value=FIRST_METRICS, label="Metrics", multiselect=True, allow_custom_value=True
        )
    plot = gr.LinePlot(x="step", y="value", color="metric", label="Curves", show_label=False, height=340)
    sheets = gr.Gallery(
        label="Validation pictures, newest first",
        interactive=False,
        columns=1,
        fit_columns=False,
        object_fit="contain",
        height="auto",
        elem_classes="pictures",
    )
    known = gr.JSON(visible=False, label="metrics")
    timer = gr.Timer(SECONDS)
    looks = partial(gr.on, [tab.select, run.change, metrics.change, timer.tick])
    shown = wiring.api(looks, records.training, [run, metrics], [plot, sheets, known], show_progress="hidden")
    shown.then(lambda known: gr.Dropdown(choices=known), known, metrics, api_visibility="private")


def report_tab(wiring: Wiring, records: Records, tab: gr.Tab) -> None:
    """A report's figures and page."""
    names = list(records.reports)
    report = gr.Dropdown(names, value=names[0], label="Report")
    figures = gr.Dataframe(
        headers=SUMMARY,
        interactive=False,
        label="Figures, with 95 % intervals",
        wrap=True,
        column_widths=["34%", "24%", "12%", "10%", "10%", "10%"],
    )
    page = gr.HTML(label="Page")
    wiring.api(partial(gr.on, [tab.select, report.change]), records.report, [report], [figures, page])
