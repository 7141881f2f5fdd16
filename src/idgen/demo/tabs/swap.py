"""A face of a picture replaced by that of an enrolled person."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ...errors import DemoError
from ...faces import choose_face
from ..backend import GenerationRequest, Results
from ..components import results
from ..page import Page
from ..picture_faces import around, faces_of, picture_inputs


def build(page: Page, tab: gr.Tab) -> None:
    """Build the tab."""
    gr.Markdown("Upload a picture and click the face to replace by that of the person on the left.")
    inputs = picture_inputs(page, "swap", page.api)
    strength = gr.Slider(0.2, 1, 0.8, step=0.05, label="Strength", info="Lower values keep the expression")
    colours = gr.Checkbox(True, label="Match skin tone and light")
    button = gr.Button("Swap the face", variant="primary", elem_id="swap")
    page.generates(button.click, swap, [page.person, *inputs, strength, colours], results(page))


def swap(
    request: GenerationRequest,
    person: str,
    picture: Any,
    consent: bool,
    face: float,
    swap_strength: float,
    match_colours: bool,
) -> Results:
    """Replace a face (0 is the largest) of a picture by that of a person; returns one picture per seed."""
    enrolled = request.session.person(person)
    photo, faces = faces_of(request.backend, picture, consent)
    chosen = choose_face(faces, int(face))
    if not 0 < swap_strength <= 1:
        raise DemoError(f"strength must be above 0 and at most 1, got {swap_strength}.")
    return request.edit(
        "swap",
        enrolled,
        scored=lambda image: around(image, chosen),
        picture=photo,
        face=tuple(chosen.box),  # an adapter may use another detector, which numbers faces differently
        strength=float(swap_strength),
        match_colours=bool(match_colours),
    )
