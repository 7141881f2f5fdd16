"""Images of one person with the expression of another photo."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ...errors import DemoError
from ..backend import GenerationRequest, Results
from ..components import filepath_image, results
from ..page import Page
from ..uploads import open_photo

MAX_SCALE = 2.0


def build(page: Page, tab: gr.Tab) -> None:
    """Build the tab."""
    gr.Markdown(
        "Upload a photo whose expression is drawn. It can show anybody: only the shape of its largest face's brows, "
        "eyes and mouth is read, and neither the face nor the expression is kept."
    )
    photo = filepath_image(
        None, label="Photo of the expression", sources=["upload", "webcam", "clipboard"], height=320, elem_id="face"
    )
    scale = gr.Slider(0, MAX_SCALE, 1, step=0.05, label="Strength of the expression", info="0 turns it off")
    button = gr.Button("Generate with this expression", variant="primary", elem_id="expression")
    page.generates(button.click, expression, [page.person, photo, scale], results(page))


def expression(request: GenerationRequest, person: str, photo: Any, expression_scale: float) -> Results:
    """Generate a person with the expression of the largest face of a photo."""
    people, backend = [request.session.person(person)], request.backend
    if not photo:
        raise DemoError("Upload a photo of the expression first.")
    if not 0 <= expression_scale <= MAX_SCALE:
        raise DemoError(f"expression_scale must be between 0 and {MAX_SCALE:g}, got {expression_scale}.")
    pixels, pipeline = open_photo(photo), backend.pipeline
    with backend.faces_lock:
        shown = pipeline.pipe.encode_identity(pixels, face="largest", adapter_name=pipeline.expression_adapter)
    arguments: dict[str, Any] = {"expression_image": shown, "expression_scale": float(expression_scale)}
    return request.generate("text-to-image", people, **arguments)
