"""A photo, changed a little so that face encoders do not recognise the person."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np
import pandas as pd
from PIL import Image

from ...errors import NoFaceError
from ...faces import DlibEncoder
from ...losses.embedders import open_embedder
from ...provenance.protection import protect
from ...provenance.protection_report import EDITS, measure_protection
from ...provenance.protection_settings import ProtectionSettings
from ..backend import Backend, Captioned
from ..components import image_gallery
from ..page import Page
from ..scores import Score
from ..sessions import Session, stopping
from ..similarity import similarity_html
from ..uploads import gallery_paths, open_photo

COLUMNS = ["encoder", "edit", "original", "protected"]

SHOWN_EDITS = ("as it is", "JPEG 75")
"""Edits after which the photos are compared."""


def build(page: Page, tab: gr.Tab) -> None:
    """Build the tab."""
    gr.Markdown(
        "Change your own photo a little before you publish it, so that face encoders like the ones below do not "
        "recognise you. It does not protect against every encoder, and future encoders may recognise you."
    )
    photo = gr.Gallery(
        label="Photo to protect",
        sources=["upload", "webcam", "clipboard"],
        file_types=["image"],
        type="filepath",
        interactive=True,
        columns=2,
        fit_columns=False,
        object_fit="contain",
        height=220,
        buttons=[],
        elem_id="unprotected",
    )
    with gr.Row():
        strength = gr.Slider(1, 32, 8, step=1, label="Strength", info="Largest change of a colour value, of 255")
        steps = gr.Slider(10, 200, 50, step=10, label="Steps", info="More steps protect better and take longer")
    button = gr.Button("Protect", variant="primary", elem_id="protect")
    gallery, bars = image_gallery(columns=2, label="Photos"), gr.HTML(elem_classes="panel", label="Similarity")
    table = gr.Dataframe(headers=COLUMNS, visible=False, label="Similarity")
    inputs, options = [photo, strength, steps], {"concurrency_id": "protect", "concurrency_limit": 1}
    shown = page.api(button.click, protect_photo, inputs, [gallery, table], show_progress_on=gallery, **options)
    page.generations.append(shown)
    shown.success(_bars, table, bars, api_visibility="private", show_progress="hidden")


def protect_photo(
    backend: Backend, photo: Any, strength: float, steps: float, session: Session, on_step: Any
) -> tuple[Captioned, pd.DataFrame]:
    """Protect the largest face of a photo; returns the protected and the original photo, and their similarities."""
    original = open_photo(gallery_paths(photo)[0])
    settings = ProtectionSettings(strength=int(strength), steps=int(steps))
    with backend.faces_lock:
        faces = backend.analyzer.analyze(original)
    if not faces:
        raise NoFaceError("No face was found. Use a photo with an upright, well-lit face at least 40 px wide.")
    with session.running() as stop:
        embedder = open_embedder(DlibEncoder.name)
        protected = protect(original, faces[0].landmarks, [embedder], settings, on_step=stopping(stop, on_step))
    encoders = list(backend.scorer.encoders.values())
    with backend.faces_lock:
        rows = measure_protection(
            original, protected, backend.analyzer.detector, encoders, {name: EDITS[name] for name in SHOWN_EDITS}
        )
    images = [
        (backend.save_png(Image.fromarray(image), name, session), caption)
        for image, name, caption in (
            (protected, "protected.png", "protected: download this PNG"),
            (original, "original.png", "original"),
        )
    ]
    values = [(row.encoder, row.edit, row.before, row.after) for row in rows]
    return images, pd.DataFrame(values, columns=COLUMNS).round(3)


def _bars(table: pd.DataFrame) -> str:
    """Similarity of the protected photo to the original, by each encoder and after each edit."""
    rows: Any = table.astype({"protected": float}).itertuples(index=False)
    scores = [
        Score(1, f"protected, {row.edit}", row.encoder, None if np.isnan(row.protected) else row.protected)
        for row in rows
    ]
    return similarity_html(scores, "Similarity to the original")
