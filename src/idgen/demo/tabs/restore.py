"""A damaged face of a photo restored, with an enrolled person or without."""

from __future__ import annotations

from typing import Any

import gradio as gr

from ...faces import choose_face
from ..backend import GenerationRequest, Results
from ..components import results
from ..page import Page
from ..picture_faces import around, faces_of, picture_inputs

BY_DAMAGE, AS_SET, NOBODY = "By the damage of the photo", "As set", "Without the person"


def build(page: Page, tab: gr.Tab) -> None:
    """Build the tab."""
    gr.Markdown(
        "Upload an old or damaged photo of the person on the left. What the photo does not show is made up: a "
        "restored face is no evidence."
    )
    inputs = picture_inputs(page, "restore", page.private)
    scale = gr.Radio((BY_DAMAGE, AS_SET, NOBODY), value=BY_DAMAGE, label="Identity strength", elem_id="restore-scale")
    button = gr.Button("Restore the face", variant="primary", elem_id="restore")
    page.generates(button.click, restore, [page.person, *inputs, scale], results(page))


def restore(
    request: GenerationRequest, person: str, picture: Any, consent: bool, face: float, restore_scale: str
) -> Results:
    """Restore a face (0 is the largest) of a photo, enlarged to the size that the base draws; one photo per seed."""
    enrolled = request.session.person(person)
    photo, faces = faces_of(request.backend, picture, consent)
    chosen = choose_face(faces, int(face))
    scales: dict[str, dict[str, Any]] = {BY_DAMAGE: {"id_scale": None}, AS_SET: {}, NOBODY: {"id_scale": 0.0}}
    return request.edit(
        "restore",
        enrolled,
        scored=lambda image: around(image, chosen, image.width / photo.shape[1]),
        picture=photo,
        face=tuple(chosen.box),
        **scales[restore_scale],
    )
