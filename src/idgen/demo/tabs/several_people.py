"""Images of several people, each in a painted region."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image, ImageOps

from ...errors import DemoError
from ..backend import GenerationRequest, Results
from ..components import CANVAS, filepath_editor, results
from ..enrolled import EnrolledPerson
from ..page import Page
from ..uploads import MAX_CANVAS_PIXELS, open_photo

COLOURS = {"red": (220, 40, 40), "blue": (40, 80, 220), "green": (40, 160, 70), "yellow": (235, 190, 40)}
"""Colours of the people's regions, in the order of the people."""

MAX_PEOPLE = len(COLOURS)

MAX_COLOUR_DISTANCE = 120
"""Colours within this distance of a region's colour belong to it: brushes have soft edges, files are compressed."""

REFINEMENT = 0.4
"""Strength of the image-to-image call after people were generated one by one: it blends the edges of the regions."""


def build(page: Page, tab: gr.Tab) -> None:
    """Build the tab."""
    pipeline = page.backend.pipeline
    size = pipeline.native_size
    people = page.several_people(MAX_PEOPLE)
    gr.Markdown(f"Each person is generated in the region of their colour: {', '.join(COLOURS)}, in this order.")
    canvas = (CANVAS, CANVAS // 2) if pipeline.draws_one_face else (CANVAS, CANVAS)
    regions = filepath_editor(
        page.backend.sessions.new_folder,
        value=_content(2, canvas),
        label="Regions",
        brush=gr.Brush(
            colors=[_hex(c) for c in COLOURS.values()], default_color=_hex(COLOURS["red"]), color_mode="fixed"
        ),
        sources=[],
        canvas_size=canvas,
        fixed_canvas=True,
        height=360,
        elem_id="regions",
    )
    own: dict[str, Any] = {}
    if pipeline.draws_one_face:
        gr.Markdown("This model draws one face per image: each person is drawn alone, then the edges are blended.")
        limits: dict[str, Any] = {"minimum": size // 2, "maximum": MAX_PEOPLE * size, "step": pipeline.size_step}
        own["width"] = gr.Slider(value=2 * size, label="Width of this image", elem_id="group-width", **limits)
    count = gr.State(2)

    def stripes(people: list[str] | None, count: int) -> tuple[Any, ...]:
        """Equal regions, and a picture wide enough, when the number of people has changed."""
        number = min(max(len(people or []), 2), MAX_PEOPLE)
        changed = [gr.skip() if number == count else value for value in (_content(number, canvas), number * size)]
        return changed[0], number, *changed[1 : 1 + len(own)]

    page.private(people.change, stripes, [people, count], [regions, count, *own.values()], show_progress="hidden")
    button = gr.Button("Generate these people", variant="primary", elem_id="generate-several")
    page.generates(button.click, several_people, [people, regions], results(page), **own)


def several_people(request: GenerationRequest, people: Sequence[str], regions: Any) -> Results:
    """Generate two to four people, where `regions` is red, blue, green and yellow."""
    if not 2 <= len(people) <= MAX_PEOPLE:
        raise DemoError(f"Choose 2 to {MAX_PEOPLE} people, not {len(people)}.")
    enrolled = [request.session.person(name) for name in people]
    masks = painted_regions(regions, len(people))
    if not request.backend.pipeline.draws_one_face:
        return request.generate("text-to-image", enrolled, id_masks=masks)
    before = len(people) * request.settings.steps
    all_steps = before + max(int(request.settings.steps * REFINEMENT), 1)
    images = _one_by_one(request, enrolled, masks, all_steps)
    refining = replace(request, on_step=request.part(before, all_steps))
    strength = max(REFINEMENT, 1 / request.settings.steps)
    return refining.generate("image-to-image", enrolled, image=images, strength=strength, id_masks=masks)


def _one_by_one(
    request: GenerationRequest, people: Sequence[EnrolledPerson], masks: Sequence[np.ndarray], all_steps: int
) -> list[Image.Image]:
    """Images with each person, generated alone, in their region."""
    pipeline, settings = request.backend.pipeline, request.settings
    side, size = pipeline.native_size, (settings.width, settings.height)
    alone = replace(settings, width=side, height=side)
    scenes = [Image.new("RGB", size, "gray") for _ in range(settings.count)]
    for i, (person, mask) in enumerate(zip(people, masks, strict=True)):
        on_step = request.part(i * settings.steps, all_steps)
        drawn = pipeline.generate("text-to-image", alone, [person], request.stop, on_step)
        region = Image.fromarray(mask).resize(size, Image.Resampling.NEAREST)
        left, top, right, bottom = region.getbbox() or (0, 0, *size)
        for scene, image in zip(scenes, drawn, strict=True):
            fitted = ImageOps.fit(image, (right - left, bottom - top))
            scene.paste(fitted, (left, top), region.crop((left, top, right, bottom)))
    return scenes


def painted_regions(regions: Any, count: int) -> list[np.ndarray]:
    """Masks (height, width) of the regions in an editor, at most `CANVAS` pixels wide and high.

    Args:
        regions: Content of the editor.
        count: Number of people; as many of `COLOURS` are needed.

    Raises:
        DemoError: There is no image, or one of the colours is missing.
        ImageError: The file is not an image, or has too many pixels.
    """
    names = list(COLOURS)[:count]
    path = None if regions is None else regions["composite"] or regions["background"]
    if path is None:
        raise DemoError(f"Paint a region for each person: {', '.join(names)}.")
    image = Image.fromarray(open_photo(path, MAX_CANVAS_PIXELS))
    image.thumbnail((CANVAS, CANVAS), Image.Resampling.NEAREST)  # does not mix colours
    pixels = np.asarray(image, float)
    distances = np.stack([np.linalg.norm(pixels - COLOURS[name], axis=-1) for name in names])
    nearest = distances.argmin(0)
    masks = [(nearest == i) & (distances[i] < MAX_COLOUR_DISTANCE) for i in range(count)]
    for mask, name in zip(masks, names, strict=True):
        if not mask.any():
            raise DemoError(f"No region is painted {name}. The colours of these people: {', '.join(names)}.")
    return masks


def _content(count: int, size: tuple[int, int]) -> dict[str, Any]:
    """Content of the editor: a stripe of its colour for each person."""
    width, height = size
    pixels = np.zeros((height, width, 3), np.uint8)
    for i, colour in enumerate(list(COLOURS.values())[:count]):
        pixels[:, i * width // count : (i + 1) * width // count] = colour
    return {"background": Image.fromarray(pixels), "layers": [], "composite": None}


def _hex(colour: Sequence[int]) -> str:
    return "#" + bytes(colour).hex()
