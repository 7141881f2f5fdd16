"""Images of one person with attributes changed, such as a smile or age."""

from __future__ import annotations

from dataclasses import replace

import gradio as gr

from ...attributes import packaged
from ...errors import DemoError
from ..backend import Backend, GenerationRequest, Results
from ..components import results
from ..page import Page

NAMES = ("smile", "age", "sex")
"""Directions with a slider."""

MAX_MOVE = 5.0


def is_available(backend: Backend) -> bool:
    """Whether an adapter reads embeddings with known directions."""
    adapters = backend.pipeline.pipe.id_adapters.values()
    return any({*NAMES} <= packaged(adapter.config["encoder"]).keys() for adapter in adapters)


def build(page: Page, tab: gr.Tab) -> None:
    """Build the tab."""
    gr.Markdown(
        "An amount of 1 is a clear change: a smile, an older face, a face that people label as a man's. Negative "
        "amounts go the other way. Large amounts show somebody else."
    )
    with gr.Row():
        sliders = [gr.Slider(-MAX_MOVE, MAX_MOVE, 0, step=0.1, label=name.capitalize()) for name in NAMES]
    button = gr.Button("Generate with these attributes", variant="primary", elem_id="attributes")
    page.generates(button.click, attributes, [page.person, *sliders], results(page))


def attributes(request: GenerationRequest, person: str, smile: float, age: float, sex: float) -> Results:
    """Generate a person moved along directions of attributes; 0 leaves an attribute as it is."""
    enrolled, pipeline = request.session.person(person), request.backend.pipeline
    identity = enrolled.for_adapter(pipeline.adapter(request.settings))
    if (blocklist := pipeline.pipe.id_blocklist) is not None:
        blocklist.check(identity)  # a person who was moved far is no longer recognised
    for name, amount in zip(NAMES, (smile, age, sex), strict=True):
        if isinstance(amount, bool) or not isinstance(amount, int | float) or not abs(amount) <= MAX_MOVE:
            raise DemoError(f"{name} must be between {-MAX_MOVE:g} and {MAX_MOVE:g}, got {amount!r}.")
        identity = identity.moved(name, float(amount))
    moved = replace(enrolled, identities=(identity,))
    return request.generate("text-to-image", [moved], compared_with=[[enrolled]])
