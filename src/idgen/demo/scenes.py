"""`Scenes`: two people, a given pose, a person between two; each function is the same for the page and for the API."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from ..errors import DemoError
from ..identity import Identity
from .functions import Functions, Shown
from .people import Person
from .sessions import Session
from .settings import Settings
from .studio import Step
from .uploads import MAX_CANVAS_PIXELS, gallery_paths, open_photo

RED, BLUE = (220, 40, 40), (40, 80, 220)
"""Paint of the first and of the second person."""

NEAR = 120
"""Colours within this distance of a paint count as it: brushes have soft edges, and files are compressed."""


CANVAS = 512
"""Side that pictures to paint or click into have at least, nearly."""


class Scenes:
    """What the further tabs can ask for.

    Args:
        functions: That know people, draw and judge.
    """

    def __init__(self, functions: Functions) -> None:
        self.functions = functions

    def draw_two(
        self, first: str, second: str, regions: Any, settings: Settings, session: Session, step: Step
    ) -> Shown:
        """Draw two people, the first where `regions` is red, the second where it is blue."""
        people = [session.person(first), session.person(second)]
        masks = painted_regions(regions)
        return self.functions.show("text", settings, people, session, step, id_masks=masks)

    def landmarks(self, photo: Any, points: Any, width: float, height: float, session: Session) -> str:
        """Draw the landmarks of the faces in a photo, or of a face by five points [x, y] in pixels of the picture."""
        size = self.functions.studio.checked_size(width, height)
        source: Any = _five_points(points) if points else open_photo(gallery_paths(photo)[0])
        return self._keep_png(self.functions.studio.landmarks(source, size), session)

    def click_landmark(
        self, pose: str, points: list, width: float, height: float, session: Session, click: Any
    ) -> tuple[str, list]:
        """One more of the five points, or the first of five new ones; returns what is drawn of them."""
        size = self.functions.studio.checked_size(width, height)
        shown = open_photo(pose, MAX_CANVAS_PIXELS)
        x, y = click.index[0] * size[0] / shown.shape[1], click.index[1] * size[1] / shown.shape[0]
        points = [*points, [x, y]] if len(points) < 5 else [[x, y]]
        if len(points) == 5:
            return self.landmarks(None, points, width, height, session), points
        canvas = Image.new("RGB", size)
        radius = max(size) / 60
        for x, y in points:
            ImageDraw.Draw(canvas).ellipse((x - radius, y - radius, x + radius, y + radius), fill="white")
        return self._keep_png(canvas, session), points

    def draw_pose(
        self, person: str, pose: str | None, pose_strength: float, settings: Settings, session: Session, step: Step
    ) -> Shown:
        """Draw a person with the landmarks that `landmarks` drew."""
        who = session.person(person)
        if not pose:
            raise DemoError("Which pose? Upload a photo that shows it, or click five points.")
        size = settings.width, settings.height
        drawn = Image.fromarray(open_photo(pose, MAX_CANVAS_PIXELS)).resize(size, Image.Resampling.NEAREST)
        arguments: dict[str, Any] = {"image": drawn, "controlnet_conditioning_scale": float(pose_strength)}
        return self.functions.show("pose", settings, [who], session, step, **arguments)

    def mix(self, first: str, second: str, share: float, settings: Settings, session: Session, step: Step) -> Shown:
        """Draw somebody between two people: at `share` 0 the first, at 1 the second."""
        people = [session.person(first), session.person(second)]
        if not 0 <= share <= 1:
            raise DemoError(f"The share of the second person lies between 0 and 1; {share} does not.")
        adapter = self.functions.studio.adapter(settings)
        one, other = (person.for_encoder(adapter.config["encoder"]) for person in people)
        between = Person("between", (Identity.mix(one, other, float(share)),), {})
        return self.functions.show("text", settings, [between], session, step, judged=[[p] for p in people])

    def _keep_png(self, picture: Image.Image, session: Session) -> str:
        buffer = io.BytesIO()
        enlarged(picture).save(buffer, format="PNG")
        return self.functions.keep_file(buffer.getvalue(), "landmarks.png", session)


def enlarged(picture: Image.Image) -> Image.Image:
    """Small pictures with larger pixels: what is shown must be large enough to be clicked into."""
    factor = max(1, CANVAS // max(picture.size))
    return picture.resize((picture.width * factor, picture.height * factor), Image.Resampling.NEAREST)


def painted_regions(regions: Any) -> list[np.ndarray]:
    """A picture with red and blue in it → masks (height, width) of both, at most `CANVAS` pixels wide and high.

    Raises:
        DemoError: There is no picture, or one of the colours is missing.
        ImageError: It is not a picture, or has too many pixels.
    """
    path = None if regions is None else regions["composite"] or regions["background"]
    if path is None:
        raise DemoError("Paint where each person shall be: the first red, the second blue.")
    picture = Image.fromarray(open_photo(path, MAX_CANVAS_PIXELS))
    picture.thumbnail((CANVAS, CANVAS), Image.Resampling.NEAREST)  # which mixes no colours
    pixels = np.asarray(picture, float)
    distances = np.stack([np.linalg.norm(pixels - paint, axis=-1) for paint in (RED, BLUE)])
    masks = [(distances[i] < NEAR) & (distances[i] < distances[1 - i]) for i in range(2)]
    for mask, colour in zip(masks, ("red", "blue"), strict=True):
        if not mask.any():
            raise DemoError(
                f"Nothing is painted {colour}. The first person goes where it is red, the second where blue."
            )
    return masks


def _five_points(points: Any) -> np.ndarray:
    """(1, 5, 2)."""
    try:
        array = np.asarray(points, float)
    except (TypeError, ValueError):
        array = np.empty(0)
    if array.shape != (5, 2) or not np.isfinite(array).all():
        raise DemoError("Five points are needed: the eye on the left, the other, the nose, both corners of the mouth.")
    return array[None]
