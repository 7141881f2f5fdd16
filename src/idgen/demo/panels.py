"""What all tabs share: the people of the page, and the settings of a picture."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr

from ..pipelines.prompts import PLACEHOLDER
from .functions import marked_faces
from .people import MAX_NAME
from .settings import MAX_COUNT, MAX_PROMPT, MAX_SCALE, MAX_SEED, MAX_STEPS, STYLES
from .studio import Studio
from .uploads import MAX_FILE_BYTES, MAX_PHOTOS
from .wiring import Wiring, person_dropdown

CONSENT = "Everybody in these photos has agreed to be drawn."


def people_panel(wiring: Wiring) -> gr.Textbox:
    """Photos, the faces in them, and the people they become; returns the name of the newest."""
    functions = wiring.functions
    gr.Markdown("### 1 · Who")
    consent = gr.Checkbox(
        False, label=CONSENT, info=f"Then photos of up to {MAX_FILE_BYTES >> 20} MB can be uploaded", elem_id="consent"
    )
    photos = gr.Gallery(
        label=f"Photos of one person: up to {MAX_PHOTOS}",
        sources=["upload", "webcam", "clipboard"],
        file_types=["image"],
        type="filepath",
        interactive=True,
        visible="hidden",
        columns=3,
        fit_columns=False,
        height="auto",
        buttons=[],
        elem_id="photos",
    )
    faces = gr.Gallery(
        label="Faces in them: click the one that is meant",
        interactive=False,
        visible="hidden",
        allow_preview=False,
        columns=4,
        fit_columns=False,
        height="auto",
        buttons=[],
        elem_id="faces",
    )
    chosen, places = gr.JSON([], visible=False, label="faces"), gr.State([])
    with gr.Row(equal_height=True):
        name = gr.Textbox(
            label="Name", placeholder="Person 1", max_length=MAX_NAME, scale=1, min_width=120, elem_id="name"
        )
        use = gr.Button("Use this person", variant="primary", scale=1, min_width=120, elem_id="use")
    newest = gr.Textbox(visible=False, label="newest")
    wiring.person = person_dropdown("Person to draw")
    wiring.person.elem_id = "person"
    with gr.Accordion("Save, load, forget", open=False):
        saved = gr.DownloadButton("Save the newest person's identity", elem_id="save")
        gr.Markdown("A file of a few KB that holds no picture. Nothing is kept here once this page is closed.")
        file = gr.File(label="Load an identity", file_types=[".safetensors"], elem_id="load")
        forget = gr.Button("Forget the person to draw")
        left = gr.JSON(visible=False, label="people")

    consent.change(
        lambda agreed: gr.Gallery(visible=True if agreed else "hidden"), consent, photos, api_visibility="private"
    )
    found = wiring.api(photos.change, functions.find_faces, [photos, consent], [faces, chosen, places])
    found.then(
        lambda places: gr.Gallery(visible=True if places else "hidden"), places, faces, api_visibility="private"
    )
    faces.select(_choose, [faces, chosen, places], [faces, chosen], api_visibility="private", show_progress="hidden")
    wiring.known = [
        wiring.api(use.click, functions.enroll, [photos, chosen, name, consent], [newest, saved]),
        wiring.api(file.upload, functions.load_identity, [file, name], newest),
        wiring.api(forget.click, functions.forget, [wiring.person], left),
    ]
    return newest


def _choose(
    faces: Sequence[tuple[str, str]], chosen: list[int], places: Sequence[Sequence[int]], event: gr.SelectData
) -> tuple[Any, list[int]]:
    """A click on a face chooses it for its photo."""
    photo, face = places[int(event.index)]  # pyright: ignore[reportArgumentType]
    chosen = [face if i == photo else old for i, old in enumerate(chosen)]
    return gr.Gallery(value=marked_faces([file for file, _ in faces], places, chosen), selected_index=None), chosen


def settings_panel(wiring: Wiring, studio: Studio) -> None:
    """A control for each field of `Settings`, and the picture that sets them all."""
    default = studio.default_settings
    gr.Markdown("### 2 · What")
    prompt = gr.Textbox(
        default.prompt, label="Prompt", info=_about_placeholder(studio), max_length=MAX_PROMPT, elem_id="prompt"
    )
    style = gr.Dropdown(list(STYLES), value=default.style, label="Style")
    scale = gr.Slider(0, MAX_SCALE, default.scale, step=0.05, label="Scale", info="How strongly the person acts")
    with gr.Accordion("More settings", open=False):
        negative = gr.Textbox(default.negative_prompt, label="Negative prompt", max_length=MAX_PROMPT)
        names = list(studio.adapters)
        adapter = gr.Dropdown(names, value=default.adapter, label="Adapter", visible=True if names[1:] else "hidden")
        with gr.Row():
            start = gr.Slider(0, 1, default.start, step=0.05, label="Acts from", info="0: the first step")
            end = gr.Slider(0, 1, default.end, step=0.05, label="Acts until", info="1: the last one")
        with gr.Row():
            steps = gr.Slider(1, MAX_STEPS, default.steps, step=1, label="Steps", elem_id="steps")
            guidance = gr.Slider(1, 20, default.guidance_scale, step=0.5, label="Guidance")
        sides: dict[str, Any] = {"minimum": studio.native // 2, "maximum": 2 * studio.native, "step": studio.step}
        with gr.Row():
            width = gr.Slider(value=default.width, label="Width", **sides)
            height = gr.Slider(value=default.height, label="Height", **sides)
        with gr.Row():
            count = gr.Slider(1, MAX_COUNT, default.count, step=1, label="Pictures")
            seed = gr.Number(default.seed, label="Seed", precision=0, minimum=0, maximum=MAX_SEED, elem_id="seed")
    picture = gr.File(
        label="Drop a picture: its settings come back",
        file_types=[".png"],
        height=150,
        elem_id="restore",
    )
    wiring.controls = {
        "prompt": prompt,
        "style": style,
        "negative_prompt": negative,
        "adapter": adapter,
        "scale": scale,
        "start": start,
        "end": end,
        "steps": steps,
        "guidance_scale": guidance,
        "width": width,
        "height": height,
        "count": count,
        "seed": seed,
    }
    wiring.api(picture.upload, wiring.functions.read_settings, [picture], list(wiring.controls.values()))


def _about_placeholder(studio: Studio) -> str:
    if studio.has_words:
        return f"{PLACEHOLDER} stands where the person's name would: “{PLACEHOLDER} in the rain”"
    return (
        f"What the picture shows; whom, is chosen above. Adapters with words read {PLACEHOLDER} as the person's name; "
        "this one has none: leave it out"
    )
