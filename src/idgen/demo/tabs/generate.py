"""Images of one person."""

from __future__ import annotations

import gradio as gr

from ..backend import GenerationRequest, Results
from ..components import results
from ..page import Page


def build(page: Page, tab: gr.Tab) -> None:
    """Build the tab."""
    button = gr.Button("Generate", variant="primary", elem_id="generate")
    page.generates(button.click, generate, [page.person], results(page))


def generate(request: GenerationRequest, person: str) -> Results:
    """Generate images of a person."""
    return request.generate("text-to-image", [request.session.person(person)])
