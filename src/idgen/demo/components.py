"""Gradio components of the demo: inputs that pass files on unopened, and the gallery and table of results."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components.base import server
from gradio.components.image_editor import AcceptBlobs, EditorData
from PIL import Image

from .backend import COLUMNS
from .page import Page
from .panel import panel
from .uploads import MAX_FILE_BYTES

CANVAS = 512
"""Minimum side in pixels, about, of images to paint or click into."""

MAX_LAYERS = 4
"""Maximum painted layers of an editor."""

MAX_PARTS = MAX_LAYERS + 2
"""Layers, background and composite."""

MAX_PENDING = 1000
"""Maximum editors whose content has arrived before the request that uses it; the oldest are dropped."""


def filepath_image(value: Any, **options: Any) -> gr.Image:
    """Gradio's image; functions get its path. Our functions open it, within limits."""
    image: Any = gr.Image(value, type="filepath", **options)
    image.preprocess = lambda payload: None if payload is None else payload.path
    return image


def filepath_editor(new_folder: Callable[[], Path], **options: Any) -> gr.ImageEditor:
    """Gradio's image editor; functions get {"background", "layers", "composite"} of paths.

    Args:
        new_folder: Makes a folder for one file.
        options: Gradio's options.
    """
    editor: Any = gr.ImageEditor(type="filepath", **options)
    content = EditorContent(new_folder)
    editor.preprocess, editor.accept_blobs = content.preprocess, content.accept_blobs
    return editor


class EditorContent:
    """Replaces two methods of an editor, whose content browsers send before the request that names it by an id.

    Args:
        new_folder: Makes a folder for one file.
    """

    def __init__(self, new_folder: Callable[[], Path]) -> None:
        self.new_folder = new_folder
        self._pending: OrderedDict[str, dict[tuple[str, int], str]] = OrderedDict()

    @server
    def accept_blobs(self, data: AcceptBlobs) -> None:
        """Save one image of an editor's content; content beyond the limits is dropped."""
        kind, index = str(data.data["type"]), str(data.data["index"] or "")
        content, number = data.files[0][1], int(index) if index.isdecimal() and len(index) < 3 else 0
        parts = self._pending.setdefault(str(data.data["id"])[:64], {})
        while len(self._pending) > MAX_PENDING:
            self._pending.popitem(last=False)
        if kind in ("background", "layer", "composite") and len(content) <= MAX_FILE_BYTES and len(parts) < MAX_PARTS:
            path = self.new_folder() / "image.png"
            path.write_bytes(content)
            parts[kind, number] = os.fspath(path)

    def preprocess(self, payload: EditorData | None) -> dict[str, Any] | None:
        """Paths of the content; too many layers are an error that the page shows."""
        if payload is None:
            return None
        if payload.id is not None:
            parts = self._pending.pop(payload.id, {})
            layers = [path for (kind, _), path in sorted(parts.items()) if kind == "layer"]
            background, composite = parts.get(("background", 0)), parts.get(("composite", 0))
        else:
            layers = [layer.path for layer in payload.layers]
            background, composite = (file and file.path for file in (payload.background, payload.composite))
        if len(layers) > MAX_LAYERS:
            raise gr.Error(f"An image can have at most {MAX_LAYERS} layers, got {len(layers)}.", print_exception=False)
        return {"background": background, "layers": layers, "composite": composite}


def results(page: Page) -> tuple[gr.Gallery, gr.Dataframe, Any]:
    """A gallery of generated images, the panel below it, and the table of their similarities."""
    gallery, shown = image_gallery(), panel()
    with gr.Accordion("Similarity as a table", open=False):
        table = gr.Dataframe(headers=COLUMNS, interactive=False, label="Similarity", show_label=False)
        gr.Markdown(
            "Cosine similarity to the reference photos, by each face encoder. The encoder that the adapter reads "
            "overestimates it. Values of different encoders cannot be compared."
        )
        if len(page.backend.scorer.encoders) == 1:
            gr.Markdown(
                "Only the adapter's own encoder is in use. Start the demo with `--eval-encoder` to add another one."
            )
    return gallery, table, shown


def image_gallery(columns: int = 2, label: str = "Images") -> gr.Gallery:
    """A gallery that shows images whole, with their captions below them."""
    return gr.Gallery(
        label=label,
        show_label=False,
        interactive=False,
        columns=columns,
        fit_columns=False,
        object_fit="contain",
        height="auto",
        buttons=["download", "fullscreen"],
        elem_classes="images",
    )


def face_gallery(label: str, columns: int, **options: Any) -> gr.Gallery:
    """A gallery of small faces to click.

    Args:
        label: Says what a click does.
        columns: Faces side by side.
        options: Gradio's options.
    """
    return gr.Gallery(
        label=label,
        interactive=False,
        allow_preview=False,
        columns=columns,
        fit_columns=False,
        height="auto",
        buttons=[],
        **options,
    )


def enlarged(image: Image.Image) -> Image.Image:
    """A small image with larger pixels, large enough to click into."""
    factor = max(1, CANVAS // max(image.size))
    return image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
