"""Images of an invented person between two people."""

from __future__ import annotations

import gradio as gr

from ...errors import DemoError
from ...identity import Identity
from ..backend import GenerationRequest, Results
from ..components import results
from ..enrolled import EnrolledPerson
from ..page import Page


def build(page: Page, tab: gr.Tab) -> None:
    """Build the tab."""
    with gr.Row():
        first, second = page.two_people()
    share = gr.Slider(0, 1, 0.5, step=0.05, label="Share of the second person")
    button = gr.Button("Generate the mix", variant="primary")
    page.generates(button.click, mix, [first, second, share], results(page))


def mix(request: GenerationRequest, first: str, second: str, share: float) -> Results:
    """Generate a mix of two people: at `share` 0 the first, at 1 the second."""
    people = [request.session.person(first), request.session.person(second)]
    if not 0 <= share <= 1:
        raise DemoError(f"The share of the second person must be between 0 and 1, got {share}.")
    adapter = request.backend.pipeline.adapter(request.settings)
    one, other = (person.for_adapter(adapter) for person in people)
    mixed = EnrolledPerson("mix", (Identity.mix(one, other, float(share)),), {})
    groups = [[person] for person in people]
    return request.generate("text-to-image", [mixed], compared_with=groups)
