"""Images of one person at several identity scales and by several adapters, side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TypeAlias

import gradio as gr
import pandas as pd

from ...errors import DemoError
from ...evaluation.scores import yardstick
from ..backend import GenerationRequest, Results
from ..components import image_gallery
from ..page import Page
from ..panel import panel
from ..scores import caption

MAX_IMAGES = 12

COLUMNS = ["id_scale", "cosine", "curve", "adapter", "encoder"]
Row: TypeAlias = tuple[float, float | None, str, str, str]
NAMES = {"strangers": "strangers", "match": "threshold"}


def build(page: Page, tab: gr.Tab) -> None:
    """Build the tab."""
    names = list(page.backend.pipeline.adapters)
    id_scales = gr.Textbox("0, 0.4, 0.8, 1.2", label="Identity scales")
    adapters = gr.CheckboxGroup(names, value=names, label="Adapters", visible=True if names[1:] else "hidden")
    button = gr.Button("Compare", variant="primary", elem_id="compare")
    gallery, shown = image_gallery(columns=4), panel()
    plot = gr.LinePlot(
        x="id_scale",
        y="cosine",
        color="curve",
        label="Similarity",
        show_label=False,  # Gradio leaves no space for it and cuts off the legend
        x_title="identity scale",
        y_title="cosine similarity",
        height=340,
    )
    page.generates(button.click, compare, [page.person, id_scales, adapters], [gallery, plot, shown])


def compare(request: GenerationRequest, person: str, id_scales: str, adapters: Sequence[str]) -> Results:
    """Generate a person with the same seed at each of the scales ("0, 0.5, 1") by each of the adapters."""
    enrolled = request.session.person(person)
    scales, names = parsed_scales(id_scales), list(dict.fromkeys(adapters[:MAX_IMAGES]))
    if not 0 < len(scales) * len(names) <= MAX_IMAGES:
        raise DemoError(f"1 to {MAX_IMAGES} images can be compared, got {len(scales) * len(names)}.")
    cells = [replace(request.settings, adapter=name, id_scale=scale, count=1) for name in names for scale in scales]
    captioned, rows = [], []
    for i, cell in enumerate(cells):
        on_step = request.part(i * cell.steps, len(cells) * cell.steps)
        [image] = request.backend.pipeline.generate("text-to-image", cell, [enrolled], request.stop, on_step)
        path, scores = request.backend.save_result(i + 1, image, cell, [[enrolled]], request.session)
        by = f"{cell.adapter}, " if len(adapters) > 1 else ""
        captioned.append((path, caption(scores, f"{by}scale {cell.id_scale:g}")))
        rows += [(cell.id_scale, s.cosine, by + s.encoder, cell.adapter, s.encoder) for s in scores]
    return captioned, pd.DataFrame([*rows, *_beside(rows)], columns=COLUMNS)


def _beside(rows: Sequence[Row]) -> list[Row]:
    """Flat curves: the mean similarity of strangers and the threshold of each encoder with statistics."""
    scales, found = sorted({row[0] for row in rows}), []
    for encoder in dict.fromkeys(row[-1] for row in rows):
        for name, value in yardstick(encoder)._asdict().items():
            if value is not None:
                found += [(scale, value, f"{NAMES[name]}, {encoder}", "", encoder) for scale in scales]
    return found


def parsed_scales(text: str) -> list[float]:
    """The numbers of "0, 0.5, 1", each once; raises DemoError."""
    if text.count(",") >= MAX_IMAGES:
        raise DemoError(f"At most {MAX_IMAGES} scales can be compared, got {text.count(',') + 1}.")
    try:
        return list(dict.fromkeys(float(part) for part in text.split(",")))
    except ValueError as error:
        raise DemoError(f"The scales must be numbers separated by commas, got '{text[:80]}'.") from error
