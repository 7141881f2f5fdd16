"""Gradio's components for pictures, which hand files on unopened: our functions open them, within limits."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.components.base import server
from gradio.components.image_editor import AcceptBlobs, EditorData

MAX_FILE_BYTES = 20 * 2**20
"""Of any upload."""

MAX_LAYERS = 4
"""Layers of an editor that hold paint."""

MAX_PARTS = MAX_LAYERS + 2
"""Layers, background and composite."""

MAX_AHEAD = 1000
"""Editors whose content has arrived before the request that uses it; the oldest are forgotten."""


def unopened_picture(value: Any, **options: Any) -> gr.Image:
    """Gradio's picture; functions get its path."""
    picture: Any = gr.Image(value, **options)
    picture.preprocess = lambda payload: None if payload is None else payload.path
    return picture


def unopened_editor(new_folder: Callable[[], Path], **options: Any) -> gr.ImageEditor:
    """Gradio's editor; functions get {"background", "layers", "composite"} of paths.

    Args:
        new_folder: Makes a folder for one file; raises DemoError if there is no room.
        options: As Gradio's.
    """
    editor: Any = gr.ImageEditor(type="filepath", **options)
    content = EditorContent(new_folder)
    editor.preprocess, editor.accept_blobs = content.preprocess, content.accept_blobs
    return editor


class EditorContent:
    """Stands in for two methods of an editor: browsers send what it holds ahead, with a name that the request gives.

    Args:
        new_folder: Makes a folder for one file.
    """

    def __init__(self, new_folder: Callable[[], Path]) -> None:
        self.new_folder = new_folder
        self._ahead: OrderedDict[str, dict[tuple[str, int], str]] = OrderedDict()

    @server
    def accept_blobs(self, data: AcceptBlobs) -> None:
        """Take one picture of an editor's content; what is too large or too much is dropped."""
        kind, index = str(data.data["type"]), str(data.data["index"] or "")
        content, number = data.files[0][1], int(index) if index.isdecimal() and len(index) < 3 else 0
        parts = self._ahead.setdefault(str(data.data["id"])[:64], {})
        while len(self._ahead) > MAX_AHEAD:
            self._ahead.popitem(last=False)
        if kind in ("background", "layer", "composite") and len(content) <= MAX_FILE_BYTES and len(parts) < MAX_PARTS:
            path = self.new_folder() / "picture.png"
            path.write_bytes(content)
            parts[kind, number] = os.fspath(path)

    def preprocess(self, payload: EditorData | None) -> Any:
        """Paths, unopened; too many layers are an error that the page shows."""
        if payload is None:
            return None
        if payload.id is not None:
            parts = self._ahead.pop(payload.id, {})
            layers = [path for (kind, _), path in sorted(parts.items()) if kind == "layer"]
            background, composite = parts.get(("background", 0)), parts.get(("composite", 0))
        else:
            layers = [layer.path for layer in payload.layers]
            background, composite = (file and file.path for file in (payload.background, payload.composite))
        if len(layers) > MAX_LAYERS:
            raise gr.Error(f"{len(layers)} layers are too many: {MAX_LAYERS} are taken.", print_exception=False)
        return {"background": background, "layers": layers, "composite": composite}
