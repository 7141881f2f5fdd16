"""The controls of `GenerationSettings`: prompt and style, the other settings, and an image that sets them all."""

from __future__ import annotations

import json
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import gradio as gr

from ..errors import DemoError
from ..pipelines.prompts import PLACEHOLDER
from .backend import Backend
from .generation import (
    MAX_COUNT,
    MAX_ID_SCALE,
    MAX_PROMPT,
    MAX_STEPS,
    STYLES,
    GenerationSettings,
    read_image_settings,
)
from .page import Page
from .pipeline import SharedPipeline
from .sessions import Session

EXAMPLES = ("{} in the rain", "{} reading a book in a café", "{} as an astronaut, city at night")
"""Example prompts for a base that knows any word."""

SMALL_EXAMPLES = ("{}, looking to the left", "{}, looking to the right", "{}, dark background")
"""Example prompts for the built-in model."""


def prompt_panel(page: Page) -> None:
    """Build the prompt, the style and the example prompts."""
    pipeline = page.backend.pipeline
    default = pipeline.default_settings
    gr.Markdown("## 2 · Prompt")
    prompt = gr.Textbox(
        default.prompt, label="Prompt", info=_prompt_info(pipeline), max_length=MAX_PROMPT, elem_id="prompt"
    )
    with gr.Row(elem_id="prompts"):
        for text in SMALL_EXAMPLES if pipeline.usage.words else EXAMPLES:
            example = text.format(default.prompt)
            button = gr.Button(example, size="sm", min_width=60)
            button.click(None, None, prompt, js=f"() => {json.dumps(example)}", api_visibility="private")
    style = gr.Dropdown(list(STYLES), value=default.style, label="Style")
    page.settings = {"prompt": prompt, "style": style}


def settings_panel(page: Page) -> None:
    """Build the other settings, and the image that sets them all."""
    pipeline = page.backend.pipeline
    default = pipeline.default_settings
    gr.Markdown("## Settings")
    id_scale = gr.Slider(
        0,
        MAX_ID_SCALE,
        default.id_scale,
        step=0.05,
        label="Identity scale",
        info="Strength of the identity, beside the prompt",
    )
    with gr.Row():
        seed = gr.Textbox("", label="Seed", placeholder="Random", max_length=10, min_width=120, elem_id="seed")
        again = gr.Button("Use the last seed", size="md", min_width=120, elem_id="last-seed")
    controls: dict[str, gr.components.FormComponent] = page.settings | {"id_scale": id_scale, "seed": seed}
    with gr.Accordion("More settings", open=False):
        controls |= _more_controls(pipeline, default)
        image = gr.File(
            label="Restore the settings of a generated image", file_types=[".png"], height=150, elem_id="restore"
        )
    page.settings = {name: controls[name] for name in vars(default)}
    page.private(again.click, _last_seed, [], seed, show_progress="hidden")
    page.api(image.upload, read_settings, [image], list(page.settings.values()))


def _last_seed(session: Session) -> str:
    """The seed of the latest request of this page."""
    if session.last_seed is None:
        raise DemoError("No image has been generated yet. The first one has a random seed.")
    return str(session.last_seed)


def _more_controls(pipeline: SharedPipeline, default: GenerationSettings) -> dict[str, gr.components.FormComponent]:
    names = list(pipeline.adapters)
    negative_prompt = gr.Textbox(default.negative_prompt, label="Negative prompt", max_length=MAX_PROMPT)
    adapter = gr.Dropdown(names, value=default.adapter, label="Adapter", visible=True if names[1:] else "hidden")
    with gr.Row():
        start = gr.Slider(0, 1, default.start, step=0.05, label="Identity start", info="Fraction of the steps")
        end = gr.Slider(0, 1, default.end, step=0.05, label="Identity end", info="Fraction of the steps")
    with gr.Row():
        steps = gr.Slider(1, MAX_STEPS, default.steps, step=1, label="Steps", elem_id="steps")
        count = gr.Slider(1, MAX_COUNT, default.count, step=1, label="Count")
    guidance_scale = gr.Slider(1, 20, default.guidance_scale, step=0.5, label="Guidance scale")
    size = pipeline.native_size
    limits: dict[str, Any] = {"minimum": size // 2, "maximum": 2 * size, "step": pipeline.size_step}
    with gr.Row():
        width = gr.Slider(value=default.width, label="Width", **limits)
        height = gr.Slider(value=default.height, label="Height", **limits)
    return {
        "negative_prompt": negative_prompt,
        "adapter": adapter,
        "start": start,
        "end": end,
        "steps": steps,
        "guidance_scale": guidance_scale,
        "width": width,
        "height": height,
        "count": count,
    }


def read_settings(backend: Backend, image: str | None, session: Session) -> tuple[str | int | float, ...]:
    """Settings of a generated image, in the order of the controls."""
    if not image:
        raise DemoError("Upload an image first.")
    settings = read_image_settings(Path(image))
    adapters = backend.pipeline.adapters
    return astuple(settings if settings.adapter in adapters else replace(settings, adapter=next(iter(adapters))))


def _prompt_info(pipeline: SharedPipeline) -> str:
    if pipeline.needs_class_word:
        return f"Write {PLACEHOLDER} behind the class word: “a man {PLACEHOLDER} in the rain”"
    if pipeline.has_words:
        return f"{PLACEHOLDER} stands for the person."
    return f"Do not write {PLACEHOLDER}: this adapter has no words. The person is selected above."
