"""Images of two people, each in a painted region."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from ...errors import DemoError
from ..backend import GenerationRequest, Results
from ..components import CANVAS, filepath_editor, results
from ..page import Page
from ..uploads import MAX_CANVAS_PIXELS, open_photo

RED, BLUE = (220, 40, 40), (40, 80, 220)
"""Colours of the first and of the second person's region."""

MAX_COLOUR_DISTANCE = 120
"""Colours within this distance of a region's colour belong to it: brushes have soft edges, files are compressed."""


def build(page: Page, tab: gr.Tab) -> None:
    """Build the tab."""
    with gr.Row():
        first, second = page.two_people()
    gr.Markdown("Paint the region of the first person red and that of the second person blue.")
    regions = filepath_editor(
        page.backend.sessions.new_folder,
        value={"background": _halves(), "layers": [], "composite": None},
        label="Regions",
        brush=gr.Brush(colors=[_hex(RED), _hex(BLUE)], default_color=_hex(RED), color_mode="fixed"),
        sources=[],
        canvas_size=(CANVAS, CANVAS),
        fixed_canvas=True,
        height=360,
        elem_id="regions",
    )
    button = gr.Button("Generate both", variant="primary", elem_id="generate-both")
    page.generates(button.click, two_people, [first, second, regions], results(page))


def two_people(request: GenerationRequest, first: str, second: str, regions: Any) -> Results:
    """Generate two people, the first where `regions` is red, the second where it is blue."""
    people = [request.session.person(first), request.session.person(second)]
    masks = painted_regions(regions)
    return request.generate("text-to-image", people, id_masks=masks)


def painted_regions(regions: Any) -> list[np.ndarray]:
    """Masks (height, width) of the red and of the blue region in an editor, at most `CANVAS` pixels wide and high.

    Raises:
        DemoError: There is no image, or one of the colours is missing.
        ImageError: The file is not an image, or has too many pixels.
    """
    path = None if regions is None else regions["composite"] or regions["background"]
    if path is None:
        raise DemoError("Paint a red region for the first person and a blue one for the second.")
    image = Image.fromarray(open_photo(path, MAX_CANVAS_PIXELS))
    image.thumbnail((CANVAS, CANVAS), Image.Resampling.NEAREST)  # does not mix colours
    pixels = np.asarray(image, float)
    distances = np.stack([np.linalg.norm(pixels - colour, axis=-1) for colour in (RED, BLUE)])
    masks = [(distances[i] < MAX_COLOUR_DISTANCE) & (distances[i] < distances[1 - i]) for i in range(2)]
    for mask, colour in zip(masks, ("red", "blue"), strict=True):
        if not mask.any():
            raise DemoError(f"No region is painted {colour}. Red is for the first person, blue for the second.")
    return masks


def _halves() -> Image.Image:
    pixels = np.full((CANVAS, CANVAS, 3), BLUE, np.uint8)
    pixels[:, : CANVAS // 2] = RED
    return Image.fromarray(pixels)


def _hex(colour: Sequence[int]) -> str:
    return "#" + bytes(colour).hex()
