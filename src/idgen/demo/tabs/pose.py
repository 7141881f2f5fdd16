"""Images of one person in a given pose, by an IdentityNet."""

from __future__ import annotations

from typing import Any

import gradio as gr
import numpy as np
from PIL import Image, ImageDraw

from ...errors import DemoError
from ..backend import Backend, GenerationRequest, Results
from ..components import enlarged, filepath_image, results
from ..page import Page
from ..sessions import Session
from ..uploads import MAX_CANVAS_PIXELS, gallery_paths, open_photo


def build(page: Page, tab: gr.Tab) -> None:
    """Build the tab."""
    pipeline = page.backend.pipeline
    if pipeline.identity_net is None:
        gr.Markdown(
            "Start the demo with `--identity-net` to generate images in a pose. Without it, poses are only shown."
        )
    with gr.Row():
        photo = gr.Gallery(
            label="Pose photo",
            sources=["upload", "webcam"],
            file_types=["image"],
            type="filepath",
            interactive=True,
            columns=2,
            fit_columns=False,
            height=260,
            buttons=[],
        )
        pose = filepath_image(
            enlarged(Image.new("RGB", (pipeline.native_size, pipeline.native_size))),
            label="Or click eyes, nose and mouth corners",
            format="png",
            interactive=False,
            image_mode=None,
            height=260,
            buttons=[],
            elem_id="pose",
        )
    points = gr.JSON([], visible=False, label="points")
    strength = gr.Slider(0, 2, 0.8, step=0.05, label="Pose strength")
    button = gr.Button("Generate in this pose", variant="primary", interactive=pipeline.identity_net is not None)
    size = [page.settings["width"], page.settings["height"]]
    cleared = photo.upload(lambda: [], None, points, api_visibility="private", show_progress="hidden")
    page.api(cleared.then, landmarks, [photo, points, *size], pose)
    page.private(pose.select, _click_landmark, [pose, points, *size], [pose, points], show_progress="hidden")
    page.generates(button.click, generate_pose, [page.person, pose, strength], results(page))


def landmarks(backend: Backend, photo: Any, points: Any, width: float, height: float, session: Session) -> str:
    """Draw the landmarks of the faces in a photo, or five points [x, y] in pixels of the image; returns the path."""
    size = backend.pipeline.checked_size(width, height)
    source: Any = _five_points(points) if points else open_photo(gallery_paths(photo)[0])
    drawn = backend.pipeline.pipe.prepare_landmarks(source, size)
    return backend.save_png(enlarged(drawn), "landmarks.png", session)


def generate_pose(request: GenerationRequest, person: str, pose: str | None, pose_strength: float) -> Results:
    """Generate images of a person with the landmarks that `landmarks` drew."""
    people = [request.session.person(person)]
    drawn = None if not pose else open_photo(pose, MAX_CANVAS_PIXELS)
    if drawn is None or not np.ptp(drawn, axis=-1).any():  # landmarks have colours, points that were clicked are white
        raise DemoError("No pose is given. Upload a pose photo, or click all five points.")
    size = request.settings.width, request.settings.height
    image = Image.fromarray(drawn).resize(size, Image.Resampling.NEAREST)
    arguments: dict[str, Any] = {"image": image, "controlnet_conditioning_scale": float(pose_strength)}
    return request.generate("pose", people, **arguments)


def _click_landmark(
    backend: Backend,
    pose: str,
    points: list[list[float]],
    width: float,
    height: float,
    session: Session,
    click: gr.SelectData,
) -> tuple[str, list[list[float]]]:
    """Add the clicked point, or start again after five; returns the path of the drawn points, and the points."""
    size = backend.pipeline.checked_size(width, height)
    shown = open_photo(pose, MAX_CANVAS_PIXELS)
    x, y = click.index[0] * size[0] / shown.shape[1], click.index[1] * size[1] / shown.shape[0]
    points = [*points, [x, y]] if len(points) < 5 else [[x, y]]
    if len(points) == 5:
        return landmarks(backend, None, points, width, height, session), points
    canvas = Image.new("RGB", size)
    radius = max(size) / 60
    for x, y in points:
        ImageDraw.Draw(canvas).ellipse((x - radius, y - radius, x + radius, y + radius), fill="white")
    return backend.save_png(enlarged(canvas), "landmarks.png", session), points


def _five_points(points: Any) -> np.ndarray:
    """(1, 5, 2)."""
    try:
        array = np.asarray(points, float)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != (5, 2) or not np.isfinite(array).all():
        raise DemoError("Five points [x, y] are needed: the left eye, the right eye, the nose and both mouth corners.")
    return array[None]
