"""A person generated into an existing image: image-to-image and inpainting."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np
from PIL import Image, ImageFilter, ImageOps

from ...errors import DemoError
from ..backend import GenerationRequest, Results
from ..components import filepath_editor, results
from ..generation import GenerationSettings
from ..page import Page
from ..uploads import open_paint, open_photo


def build(page: Page, tab: gr.Tab) -> None:
    """Build the tab."""
    gr.Markdown("Upload an image. Regenerate all of it, or paint over an area and inpaint that.")
    image = filepath_editor(
        page.backend.sessions.new_folder,
        label="Image",
        brush=gr.Brush(colors=["#ffffff"], default_color="#ffffff", color_mode="fixed"),
        sources=["upload", "clipboard"],
        height=400,
        elem_id="editor",
    )
    strength = gr.Slider(0.05, 1, 0.7, step=0.05, label="Strength", info="At 1 nothing of the image is kept")
    with gr.Row():
        whole = gr.Button("Regenerate whole image", elem_id="image-to-image")
        painted = gr.Button("Inpaint painted area", variant="primary", elem_id="inpaint")
    shown = results(page)
    page.generates(whole.click, image_to_image, [page.person, image, strength], shown)
    page.generates(painted.click, inpaint, [page.person, image, strength], shown)


def image_to_image(request: GenerationRequest, person: str, image: Any, strength: float) -> Results:
    """Regenerate an image with a person in it; at `strength` 1 nothing of the image is kept."""
    people = [request.session.person(person)]
    background, _ = opened(image, request.settings)
    arguments: dict[str, Any] = {"image": background, "strength": checked_strength(strength, request.settings)}
    return request.generate("image-to-image", people, **arguments)


def inpaint(request: GenerationRequest, person: str, image: Any, strength: float) -> Results:
    """Generate a person in the painted area of an image; the rest of the image stays unchanged."""
    people = [request.session.person(person)]
    background, mask = opened(image, request.settings)
    if mask is None:
        raise DemoError("No area is painted. Paint over the area to inpaint.")
    arguments: dict[str, Any] = {"image": background, "strength": checked_strength(strength, request.settings)}
    task = "inpaint" if request.backend.pipeline.supports_inpainting else "image-to-image"
    if task == "inpaint":
        arguments |= {"mask_image": mask, "width": background.width, "height": background.height}

    def keep_rest(generated: Image.Image) -> Image.Image:
        return Image.composite(generated, background, mask)

    return request.generate(task, people, finish=keep_rest, **arguments)


def checked_strength(strength: float, settings: GenerationSettings) -> float:
    """Raises DemoError if no step would be computed."""
    if not 0 < strength <= 1:
        raise DemoError(f"strength must be above 0 and at most 1, got {strength}.")
    if int(settings.steps * strength) < 1:
        raise DemoError(f"{settings.steps} steps at strength {strength} give less than one step. Increase either.")
    return float(strength)


def opened(image: Any, settings: GenerationSettings) -> tuple[Image.Image, Image.Image | None]:
    """The image of an editor, cropped to the settings' size, and its painted area in white (None if there is none).

    Raises:
        DemoError: There is no image.
        ImageError: A file is not an image, or has too many pixels.
    """
    path = image and (image["background"] or image["composite"])
    if not path:
        raise DemoError("Upload an image first.")
    photo, size = Image.fromarray(open_photo(path)), (settings.width, settings.height)
    background, painted = ImageOps.fit(photo, size), np.zeros(photo.size[::-1], bool)
    for layer in image["layers"]:
        painted |= open_paint(layer, photo.size)
    if not painted.any():
        return background, None
    mask = ImageOps.fit(Image.fromarray(painted.astype(np.uint8) * 255), size)
    return background, mask.filter(ImageFilter.GaussianBlur(max(size) / 128))
