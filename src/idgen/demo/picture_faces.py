"""A picture in which a face is edited: its upload, the consent, and the choice of the face."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import gradio as gr
import numpy as np
from PIL import Image

from ..errors import DemoError, NoFaceError
from ..faces import Face, align_face
from .backend import Backend, Captioned
from .components import face_gallery, filepath_image
from .page import Page
from .sessions import Session
from .uploads import open_photo

CONSENT = "Everyone in this picture has agreed that it is changed."


class PictureInputs(NamedTuple):
    """Components that say what is edited."""

    picture: gr.Image
    consent: gr.Checkbox
    face: gr.Number


def picture_inputs(page: Page, task: str, call: Callable[..., Any]) -> PictureInputs:
    """Build the components.

    Args:
        page: The page.
        task: What is done to the face, for the label and the element ids.
        call: `page.api` for the tab whose search of faces is in the API, `page.private` for others.
    """
    picture = filepath_image(None, label="Picture", sources=["upload", "clipboard"], height=320, elem_id=f"to-{task}")
    consent = gr.Checkbox(False, label=CONSENT, elem_id=f"{task}-consent")
    faces = face_gallery(f"Faces in the picture: click the one to {task}", columns=6, elem_id=f"{task}-faces")
    face = gr.Number(0, label="Face", precision=0, info="0 is the largest", elem_id=f"{task}-face")
    call(consent.input, picture_faces, [picture, consent], faces)
    faces.select(_clicked, None, face, api_visibility="private", show_progress="hidden")
    return PictureInputs(picture, consent, face)


def picture_faces(backend: Backend, picture: Any, consent: bool, session: Session) -> Captioned:
    """The faces in a picture, largest first."""
    if not consent:
        return []
    photo, faces = faces_of(backend, picture, consent)
    crops = [Image.fromarray(align_face(photo, face.landmarks)) for face in faces]
    return [(backend.save_png(crop, "face.png", session), f"face {i}") for i, crop in enumerate(crops)]


def faces_of(backend: Backend, picture: Any, consent: bool) -> tuple[np.ndarray, list[Face]]:
    """A picture, (height, width, 3) uint8, and its faces, largest first.

    Raises:
        DemoError: There is no picture, or no consent.
        NoFaceError: No face was found.
    """
    if not picture:
        raise DemoError("Upload a picture first.")
    if not consent:
        raise DemoError("Confirm first that everyone in the picture has agreed: tick the box below it.")
    photo = open_photo(picture)
    with backend.faces_lock:
        faces = backend.analyzer.analyze(photo)
    if not faces:
        raise NoFaceError("No face was found. Use a picture with an upright, well-lit face at least 40 px wide.")
    return photo, faces


def around(image: Image.Image, face: Face, zoom: float = 1.0) -> Image.Image:
    """The part of an edited picture around a face, which alone is compared with the person.

    Args:
        image: The edited picture.
        face: The face in the picture that was given.
        zoom: How many times the edited picture is larger than that one.
    """
    x0, y0, x1, y1 = (zoom * value for value in face.box)
    reach, x, y = max(x1 - x0, y1 - y0), (x0 + x1) / 2, (y0 + y1) / 2
    box = (max(0, x - reach), max(0, y - reach), min(image.width, x + reach), min(image.height, y + reach))
    return image.crop(tuple(round(value) for value in box))  # pyright: ignore[reportArgumentType]


def _clicked(event: gr.SelectData) -> int:
    return int(event.index)  # pyright: ignore[reportArgumentType]
