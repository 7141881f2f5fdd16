"""Files that visitors upload: where they are saved, and how they are opened."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
from gradio.route_utils import MultiPartException, upload_fn
from gradio.routes import file_upload_statuses
from PIL import EpsImagePlugin, Image
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from ..errors import DemoError
from ..faces import load_photo
from ..faces.image_file import decode_image
from .sessions import Sessions

EpsImagePlugin.gs_binary = False  # Gradio opens its editor's files with all of Pillow: an EPS must not start a program

MAX_PHOTOS = 8

MAX_FILE_BYTES = 20 * 2**20
"""Maximum bytes of an uploaded file."""

MAX_UPLOAD = MAX_PHOTOS * MAX_FILE_BYTES + 2**20
"""Maximum bytes of a request that uploads files: all photos of a person at once."""

MAX_PIXELS = 40_000_000
"""Maximum pixels of a photo, as phones take them; checked before it is decoded."""

MAX_CANVAS_PIXELS = 4_000_000
"""Maximum pixels of an image that was painted in the demo."""

WORKING_SIDE = 1600
"""Larger photos are reduced: finding faces takes seconds otherwise, and encoders read crops of 150 px at most."""


def upload_routes(sessions: Sessions) -> list[Route]:
    """Routes that replace Gradio's for uploads.

    Gradio names an upload by its content, so two visitors with the same photo share a file. Here each file has its own
    folder.
    """

    async def upload(request: Request) -> Response:
        app: Any = request.app
        if app.auth is not None and not _is_logged_in(request, app):
            return JSONResponse({"detail": "Not authenticated"}, 401)
        name = request.query_params.get("upload_id")
        progress = file_upload_statuses if name else None
        try:
            folder = await run_in_threadpool(sessions.new_folder)
            files, _, _ = await upload_fn(request, folder, MAX_FILE_BYTES, name, upload_progress=progress)
        except DemoError as error:
            return PlainTextResponse(str(error), 507)
        except MultiPartException as error:
            return PlainTextResponse(error.message, 413 if "maximum allowed size" in error.message else 400)
        return JSONResponse([os.fspath(file) for file in files])

    return [Route(f"/gradio_api/upload{end}", upload, methods=["POST"]) for end in ("", "/")]


def open_photo(path: str, max_pixels: int = MAX_PIXELS) -> np.ndarray:
    """Open a photo as (height, width, 3) RGB, reduced to `WORKING_SIDE`.

    Raises:
        ImageError: The file is not an image, is damaged, or has too many pixels.
    """
    photo = load_photo(path, max_pixels)
    if max(photo.shape[:2]) <= WORKING_SIDE:
        return photo
    image = Image.fromarray(photo)
    image.thumbnail((WORKING_SIDE, WORKING_SIDE), Image.Resampling.LANCZOS)
    return np.asarray(image)


def open_paint(path: str, size: tuple[int, int]) -> np.ndarray:
    """Open a layer of an editor as (height, width) booleans: where it is painted.

    Args:
        path: An image file.
        size: Width and height of the result.

    Raises:
        ImageError: The file is not an image, or has too many pixels.
    """
    layer = decode_image(path, MAX_PIXELS).image
    if "transparency" in layer.info:
        layer = layer.convert("RGBA")
    if "A" not in layer.getbands():
        return np.ones(size[::-1], bool)
    return np.asarray(layer.getchannel("A").resize(size)) > 127


def gallery_paths(photos: Sequence[tuple[str, str | None]] | None) -> list[str]:
    """Paths of the photos in an input gallery.

    Raises:
        DemoError: There is none, or there are too many.
    """
    if not photos:
        raise DemoError("Upload a photo first.")
    if len(photos) > MAX_PHOTOS:
        raise DemoError(f"At most {MAX_PHOTOS} photos of a person can be used, got {len(photos)}.")
    return [path for path, _ in photos]


def _is_logged_in(request: Request, app: Any) -> bool:
    cookies = (request.cookies.get(f"access-token{kind}-{app.cookie_id}") for kind in ("", "-unsecure"))
    return any(cookie in app.tokens for cookie in cookies)
