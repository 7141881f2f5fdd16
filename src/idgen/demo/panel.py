"""`Panel`: what the page shows below the images: progress, then what was generated and how similar it is."""

from __future__ import annotations

import html
from abc import ABCMeta
from collections.abc import Sequence
from typing import Any

import gradio as gr
import pandas as pd

from .backend import COLUMNS
from .live import duration
from .scores import Score
from .similarity import similarity_html

EMPTY = '<p class="empty-panel">Images appear here.</p>'
STARTING = '<div class="live"><progress aria-label="Steps"></progress><p role="status">Starting …</p></div>'
"""Shown until the first step is done."""


# Gradio's metaclass would write a .pyi file beside this module.
Panel: Any = ABCMeta.__new__(
    type(gr.HTML), "Panel", (gr.HTML,), {"skip_api": property(lambda self: True), "__module__": __name__}
)
"""HTML that is for people: API clients do not get it."""


def panel() -> Any:
    """An empty panel."""
    return Panel(EMPTY, elem_classes="panel")


def stopped(shown: str | None) -> str | None:
    """HTML of a panel after Stop. Results on display stay."""
    return '<p class="empty-panel" role="status">Stopped.</p>' if 'class="live"' in (shown or "") else shown


def finished(count: int, seed: int, seconds: float, unknown: Sequence[str], table: pd.DataFrame) -> str:
    """HTML of the result of a generation.

    Args:
        count: Number of images.
        seed: Seed of the first image.
        seconds: How long it took.
        unknown: Words of the prompt that the model does not know.
        table: Similarities, as `GenerationRequest.generate` returns them; other tables are shown by their tabs.
    """
    images = "1 image" if count == 1 else f"{count} images"
    warning = ""
    if unknown:
        words = ", ".join(html.escape(word) for word in unknown)
        warning = f'<p class="warning">The model does not know these words, and ignores them: {words}.</p>'
    bars = ""
    if list(table.columns) == COLUMNS:
        rows = table.astype(object).where(table.notna(), None).itertuples(index=False)
        bars = similarity_html(Score(*row) for row in rows)
    return f'<p role="status">{images} in {duration(seconds)}, seed {seed}.</p>{warning}{bars}'
