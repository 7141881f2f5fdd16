"""A face of a picture replaced by that of an enrolled person."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import gradio as gr
import numpy as np
import pandas as pd
from PIL import Image

from ...errors import DemoError, NoFaceError
from ...faces import Face, align_face, choose_face
from ..backend import COLUMNS, Backend, Captioned, GenerationRequest, Results
from ..components import filepath_image, results
from ..page import Page
from ..sessions import Session
from ..uploads import open_photo

CONSENT = "Everyone in this picture has agreed that it is changed."


def build(page: Page, tab: gr.Tab) -> None:
    """Build the tab."""
    gr.Markdown("Upload a picture and click the face to replace by that of the person on the left.")
    picture = filepath_image(None, label="Picture", sources=["upload", "clipboard"], height=320, elem_id="to-swap")
    consent = gr.Checkbox(False, label=CONSENT, elem_id="swap-consent")
    faces = gr.Gallery(
        label="Faces in the picture: click the one to replace",
        interactive=False,
        allow_preview=False,
        columns=6,
        fit_columns=False,
        height="auto",
        buttons=[],
        elem_id="picture-faces",
    )
    face = gr.Number(0, label="Face", precision=0, info="0 is the largest", elem_id="face-index")
    strength = gr.Slider(0.2, 1, 0.8, step=0.05, label="Strength", info="Lower values keep the expression")
    colours = gr.Checkbox(True, label="Match skin tone and light")
    button = gr.Button("Swap the face", variant="primary", elem_id="swap")
    page.api(consent.input, picture_faces, [picture, consent], faces)
    faces.select(_clicked, None, face, api_visibility="private", show_progress="hidden")
    page.generates(button.click, swap, [page.person, picture, consent, face, strength, colours], results(page))


def picture_faces(backend: Backend, picture: Any, consent: bool, session: Session) -> Captioned:
    """The faces in a picture, largest first."""
    if not consent:
        return []
    photo, faces = _faces_of(backend, picture, consent)
    crops = [Image.fromarray(align_face(photo, face.landmarks)) for face in faces]
    return [(backend.save_png(crop, "face.png", session), f"face {i}") for i, crop in enumerate(crops)]


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
    photo, faces = _faces_of(request.backend, picture, consent)
    chosen = choose_face(faces, int(face))
    if not 0 < swap_strength <= 1:
        raise DemoError(f"strength must be above 0 and at most 1, got {swap_strength}.")
    captioned, rows = [], []
    for i in range(request.settings.count):
        own = replace(request.settings, seed=request.settings.seed + i, count=1)
        on_step = request.part(i * own.steps, request.settings.count * own.steps)
        [image] = request.backend.pipeline.generate(
            "swap",
            own,
            [enrolled],
            request.stop,
            on_step,
            picture=photo,
            face=tuple(chosen.box),  # an adapter may use another detector, which numbers faces differently
            strength=float(swap_strength),
            match_colours=bool(match_colours),
        )
        shown = _around(image, chosen)
        path, scores = request.backend.save_result(i + 1, image, own, [[enrolled]], request.session, scored=shown)
        captioned.append((path, f"seed {own.seed}"))
        rows += scores
    return captioned, pd.DataFrame([vars(row) for row in rows], columns=COLUMNS).round(3)


def _faces_of(backend: Backend, picture: Any, consent: bool) -> tuple[np.ndarray, list[Face]]:
    if not picture:
        raise DemoError("Upload a picture first.")
    if not consent:
        raise DemoError("Confirm first that everyone in the picture has agreed: tick the box below it.")
    photo = open_photo(picture)
    with backend.faces_lock:
        faces = backend.analyzer.analyze(photo)
    if not faces:
        raise NoFaceError("No face was found. Use a picture with an upright, well-lit face at least 40 px wide.")
    return photo, faces


def _around(image: Image.Image, face: Face) -> Image.Image:
    """The part of a picture around a face, which alone is compared with the person."""
    x0, y0, x1, y1 = face.box
    reach, x, y = max(x1 - x0, y1 - y0), (x0 + x1) / 2, (y0 + y1) / 2
    box = (max(0, x - reach), max(0, y - reach), min(image.width, x + reach), min(image.height, y + reach))
    return image.crop(tuple(round(value) for value in box))  # pyright: ignore[reportArgumentType]


def _clicked(event: gr.SelectData) -> int:
    return int(event.index)  # pyright: ignore[reportArgumentType]
