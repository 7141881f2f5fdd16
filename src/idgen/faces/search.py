"""Runs a detector at a working size, with a border around close-ups, and again on each face.

Detectors are trained on upright faces of certain sizes. In large photos their landmarks are inaccurate, and an
upside-down face is found with the landmarks of an upright one.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from PIL import Image

from .face import Detection, overlap

Run: TypeAlias = "Callable[[np.ndarray], list[Detection]]"
"""Finds faces in an image without resizing it."""

WINDOW = 320
"""Side of the square for the second pass on a face; the longer side of its box is a third of it."""

QUICK = ((320, 0), (320, 160), (640, 0))
"""Longer sides of the copies that `search_upright` reads one after the other, and their borders, in pixels."""

_MAX_ZOOM = 3.0
"""Limit of the enlargement of small photos."""


@dataclass(frozen=True)
class Doubt:
    """The scores at which a face is detected again in a second pass.

    Attributes:
        sure: Faces with at least this score are upright and need no second pass.
        least: Minimum of the mean score of both passes for other faces.
    """

    sure: float
    least: float = -np.inf


def search(
    image: np.ndarray, run: Run, side: int | None, look: Run | None = None, doubt: Doubt | None = None
) -> list[Detection]:
    """Find the faces of a photo in any of four orientations.

    Args:
        image: (height, width, 3), uint8 RGB.
        run: The detector.
        side: The photo is resized so that its longer side has this many pixels; `None` for a detector that resizes.
        look: The detector for squares of `WINDOW` pixels around a face; `run` if not given.
        doubt: Which faces need a second pass; all if not given. After it, landmarks are the mean of those in the
            square and in its mirror image.
    """
    found = _fitted(image, run, side) or _close_up(image, run, 320 if side is None else side // 2)
    faces = [settled for face in found if (settled := _settled(image, face, look or run, doubt))]
    kept: list[Detection] = []
    for face in sorted(faces, key=lambda face: face.score, reverse=True):
        if all(overlap(face.box, other.box) < 0.5 for other in kept):  # two detections can be of one face
            kept.append(face)
    return kept


def search_upright(image: np.ndarray, run: Run, people: int = 1, doubt: Doubt | None = None) -> list[Detection]:
    """Find the largest faces of a picture in which faces are upright, in a fraction of the time of `search`.

    A small copy of the picture is read first, which shows the largest faces. A copy with a border and a larger copy
    are read only if fewer faces than people are found.

    Args:
        image: As for `search`; so is `run`.
        people: Number of faces that are wanted.
        doubt: Which faces are looked at a second time; none if not given.

    Returns:
        The faces of the copy that shows most of them.
    """
    most: list[Detection] = []
    for side, border in QUICK:
        large = WINDOW / 6 / _zoom(image, side)
        faces = [_upright(image, face, run, doubt, large) for face in _fitted(image, run, side, border)]
        most = max(most, [face for face in faces if face is not None], key=len)
        if len(most) >= people:
            break
    return most


def _upright(image: np.ndarray, face: Detection, run: Run, doubt: Doubt | None, large: float) -> Detection | None:
    """A face that is sure enough, or None; the landmarks of one narrower than `large` are those of a second look."""
    sure, wide = doubt is None or face.score >= doubt.sure, (face.box[2:] - face.box[:2]).max() >= large
    if sure and wide:
        return face
    again = _seen(image, face, run, turn=0)
    if doubt is not None and not sure and (again is None or (face.score + again.score) / 2 < doubt.least):
        return None
    return face if wide else again or face


def _settled(image: np.ndarray, face: Detection, look: Run, doubt: Doubt | None) -> Detection | None:
    if doubt and face.score >= doubt.sure:
        return face
    turn, again = _look_again(image, face, look)
    if doubt is None or (again and turn):
        return again or face
    score = (face.score + again.score) / 2 if again else -np.inf
    return face if score >= doubt.least else None


def _fitted(image: np.ndarray, run: Run, side: int | None, border: int = 0) -> list[Detection]:
    """Faces in pixels of the photo, found at a working size with a black border of `border` pixels."""
    height, width = image.shape[:2]
    zoom = _zoom(image, side)
    size = max(1, round(width * zoom)), max(1, round(height * zoom))
    pixels = image if zoom == 1 else np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR))
    if border:
        pixels = np.pad(pixels, ((border, border), (border, border), (0, 0)))
    return [_moved(face, lambda points: (points - border) * (width, height) / size) for face in run(pixels)]


def _zoom(image: np.ndarray, side: int | None) -> float:
    return 1.0 if side is None else min(_MAX_ZOOM, side / max(image.shape[:2]))


def _close_up(image: np.ndarray, run: Run, side: int) -> list[Detection]:
    """Faces that fill the photo, which detectors find with a border around it."""
    return _fitted(image, run, side, border=side // 2)


def _look_again(image: np.ndarray, face: Detection, look: Run) -> tuple[int, Detection | None]:
    """The orientation of a face in turns of 90° to the right, and the face detected in that orientation.

    Upright faces have the highest score: with YuNet in 535 of 535 photos.
    """
    looks = [_seen(image, face, look, turn) for turn in range(4)]
    turn = max(range(4), key=lambda i: -np.inf if (one := looks[i]) is None else one.score)
    first = looks[turn]
    if first is None:
        return 0, None
    second, mirrored = (_seen(image, first, look, turn, mirror) for mirror in (False, True))
    if second is None or mirrored is None:
        return turn, first
    return turn, replace(second, landmarks=(second.landmarks + mirrored.landmarks) / 2)


def _seen(image: np.ndarray, face: Detection, look: Run, turn: int, mirror: bool = False) -> Detection | None:
    """The face detected in the square around it, rotated and optionally mirrored; in pixels of the photo."""
    centre, length = (face.box[:2] + face.box[2:]) / 2, 3 * max(*(face.box[2:] - face.box[:2]), 1)
    window = np.rot90(_cut(image, centre - length / 2, length), turn)
    found = _middle_one(look(np.ascontiguousarray(window[:, ::-1] if mirror else window)))
    if found is None:
        return None
    if mirror:
        found = _moved(found, lambda points: points * (-1, 1) + (WINDOW, 0))
        found = replace(found, landmarks=found.landmarks[[1, 0, 2, 4, 3]])
    return _moved(found, lambda points: _unturned(points, turn) * length / WINDOW + centre - length / 2)


def _middle_one(found: list[Detection]) -> Detection | None:
    """The face of the highest score whose centre is in the middle half of the window."""
    central = [face for face in found if np.abs((face.box[:2] + face.box[2:] - WINDOW) / 2).max() < WINDOW / 4]
    return max(central, key=lambda face: face.score, default=None)


def _cut(image: np.ndarray, corner: np.ndarray, length: float) -> np.ndarray:
    """A square of a photo, resized to (WINDOW, WINDOW, 3); black outside of the photo."""
    low, high = np.floor(corner).astype(int), np.floor(corner + length).astype(int) + 1
    inner_low, inner_high = low.clip(0, image.shape[1::-1]), high.clip(0, image.shape[1::-1])
    part = image[inner_low[1] : inner_high[1], inner_low[0] : inner_high[0]]
    (left, top), (right, bottom) = inner_low - low, high - inner_high
    part = np.pad(part, ((top, bottom), (left, right), (0, 0)))
    x, y = corner - low
    return np.asarray(
        Image.fromarray(part).resize((WINDOW, WINDOW), Image.Resampling.BILINEAR, (x, y, x + length, y + length))
    )


def _unturned(points: np.ndarray, turn: int) -> np.ndarray:
    """Points of `np.rot90(window, turn)` → points of the window, both from the corner."""
    for _ in range(turn):
        points = np.stack([WINDOW - points[:, 1], points[:, 0]], 1)
    return points


def _moved(face: Detection, where: Callable[[np.ndarray], np.ndarray]) -> Detection:
    """A face in other coordinates. `where` maps distances from the corner; landmarks are relative to pixel centres."""
    corners = where(face.box.reshape(2, 2))
    box = np.concatenate([corners.min(0), corners.max(0)])
    return replace(face, box=box, landmarks=where(face.landmarks + 0.5) - 0.5)
