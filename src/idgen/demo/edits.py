"""`Edits`: a person drawn into a picture that is there already."""

from __future__ import annotations

from typing import Any

import numpy as np
from PIL import Image, ImageFilter, ImageOps

from ..errors import DemoError
from .functions import Functions, Shown
from .sessions import Session
from .settings import Settings
from .studio import Step
from .uploads import open_paint, open_photo


class Edits:
    """What the tab for pictures that are there already can ask for.

    Args:
        functions: That know people, draw and judge.
    """

    def __init__(self, functions: Functions) -> None:
        self.functions = functions

    def redraw(
        self, person: str, picture: Any, strength: float, settings: Settings, session: Session, step: Step
    ) -> Shown:
        """Draw a picture again with a person in it: at `strength` 1 nothing of it stays."""
        who = session.person(person)
        image, _ = opened(picture, settings)
        arguments = {"image": image, "strength": checked_strength(strength, settings)}
        return self.functions.show("image", settings, [who], session, step, **arguments)

    def inpaint(
        self, person: str, picture: Any, strength: float, settings: Settings, session: Session, step: Step
    ) -> Shown:
        """Draw a person where a picture is painted over, and leave the rest as it is."""
        who = session.person(person)
        image, mask = opened(picture, settings)
        if mask is None:
            raise DemoError("Paint over what shall be drawn again.")
        arguments: dict[str, Any] = {"image": image, "strength": checked_strength(strength, settings)}
        task = "inpaint" if self.functions.studio.inpaints else "image"
        if task == "inpaint":
            arguments |= {"mask_image": mask, "width": settings.width, "height": settings.height}

        def keep_rest(drawn: Image.Image) -> Image.Image:
            return Image.composite(drawn, image, mask)

        return self.functions.show(task, settings, [who], session, step, finish=keep_rest, **arguments)


def checked_strength(strength: float, settings: Settings) -> float:
    """Raises DemoError if nothing would be drawn."""
    if not 0 < strength <= 1:
        raise DemoError(f"Strength lies above 0 and up to 1; {strength} does not.")
    if int(settings.steps * strength) < 1:
        raise DemoError(f"{settings.steps} steps at strength {strength} are less than one: raise either.")
    return float(strength)


def opened(picture: Any, settings: Settings) -> tuple[Image.Image, Image.Image | None]:
    """What an editor holds → the picture, cut to the settings' size, and where it is painted over (white), if at all.

    Raises:
        DemoError: There is no picture.
        ImageError: Something in it is not a picture, or has too many pixels.
    """
    path = picture and (picture["background"] or picture["composite"])
    if not path:
        raise DemoError("Upload a picture first.")
    background, size = Image.fromarray(open_photo(path)), (settings.width, settings.height)
    image, painted = ImageOps.fit(background, size), np.zeros(background.size[::-1], bool)
    for layer in picture["layers"]:
        painted |= open_paint(layer, background.size)
    if not painted.any():
        return image, None
    mask = ImageOps.fit(Image.fromarray(painted.astype(np.uint8) * 255), size)
    return image, mask.filter(ImageFilter.GaussianBlur(max(size) / 128))
