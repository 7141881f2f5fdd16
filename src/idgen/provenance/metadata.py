"""The settings of a generated picture, in its PNG file."""

from __future__ import annotations

import io
import json
import os
from collections.abc import Mapping
from typing import Any, TypeAlias

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from ..errors import ProvenanceError
from ..faces.containers import png_chunks
from ..faces.image_file import decode_image, image_format, read_image_file
from ..files import parse_json

KEYWORD = "idgen"
"""Keyword of the text chunk that holds the settings as JSON."""

Picture: TypeAlias = "str | os.PathLike[str] | bytes"


def write_png(image: Image.Image, settings: Mapping[str, object]) -> bytes:
    """A PNG file with settings in it.

    Args:
        image: Written without loss.
        settings: Name → text, number, boolean, None, or a mapping of those (a scale per block). Lists and tensors are
            refused: they could be embeddings.

    Raises:
        ProvenanceError: A setting has another type, or is not finite.
    """
    for name, value in settings.items():
        _check(name, value)
    text = PngInfo()
    text.add_itxt(KEYWORD, json.dumps(dict(settings), ensure_ascii=False, allow_nan=False))
    buffer = io.BytesIO()
    image.save(buffer, format="PNG", pnginfo=text)
    return buffer.getvalue()


def read_settings(picture: Picture) -> dict[str, Any] | None:
    """The settings that `write_png` put into a file; None if there are none.

    Anyone can write these values: they prove nothing, and must be checked before they are used.

    Args:
        picture: A path, or the content of a file.

    Raises:
        ImageError: The file is not a picture.
        ProvenanceError: The settings are damaged.
    """
    data = read_image_file(picture)
    decode_image(data)
    text = _text(data)
    if text is None:
        return None
    settings = parse_json(text, "The text of the settings in the picture", ProvenanceError)
    if not isinstance(settings, dict):
        raise ProvenanceError(f"The settings in the picture must be a JSON object, not {type(settings).__name__}.")
    return settings


def open_picture(picture: Picture) -> Image.Image:
    """Open a path, or the content of a file; raises ImageError if it is not a picture or cannot be opened safely."""
    return decode_image(picture).image


def _text(data: bytes) -> str | None:
    """The text chunk that `write_png` writes (PNG 1.2, 4.2.3.3; not compressed, without language)."""
    form = image_format(data)
    if form is None or form.name != "PNG":
        return None
    start = KEYWORD.encode() + b"\0"
    body = next((body for kind, body, _ in png_chunks(data) if kind == b"iTXt" and body.startswith(start)), None)
    if body is None:
        return None
    flags, text = body[len(start) : len(start) + 2], body[len(start) + 2 :].split(b"\0", 2)[-1]
    if flags[:1] != b"\0":
        raise ProvenanceError("The settings in the picture are damaged: they are compressed, which idgen does not do.")
    return text.decode("utf-8", "replace")


def _check(name: str, value: Any) -> None:
    if isinstance(value, Mapping):
        for key, inner in value.items():
            _check(f"{name}.{key}", inner)
    elif not (value is None or isinstance(value, str | bool | int | float)):
        raise ProvenanceError(
            f"A picture's settings must be text, numbers or booleans; '{name}' is of type {type(value).__name__}."
        )
    elif isinstance(value, float) and value - value != 0:
        raise ProvenanceError(f"The setting '{name}' must be finite, got {value}.")
