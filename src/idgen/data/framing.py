"""Cropping training pictures from photos, with the landmarks in them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image

from ..errors import DataError
from ..faces import ARCFACE_TEMPLATE, align_face, similarity_transform
from ..files import read_json
from ..tiny import base_place
from ..typed import arguments
from .poses import Pose

FRAMING = "framing.json"
"""File of a base model of aligned faces that says how its pictures are cut."""


class Place(NamedTuple):
    """The position of a training picture in a photo; computed without the photo's pixels.

    Attributes:
        height: Height of the picture.
        width: Width of the picture.
        landmarks: (5, 2), in pixels of the picture.
        time_ids: SDXL's size conditioning: height and width of the photo, top and left of the crop in the resized
            photo, height and width of the picture.
    """

    height: int
    width: int
    landmarks: np.ndarray
    time_ids: tuple[int, int, int, int, int, int]

    def mirrored(self) -> np.ndarray:
        """(5, 2), the landmarks of the mirrored picture; left and right are swapped."""
        return self.landmarks[[1, 0, 2, 4, 3]] * (-1, 1) + (self.width - 1, 0)


class Framing(Protocol):
    """A way to cut training pictures from photos."""

    @property
    def name(self) -> str:
        """Identifies everything that the picture depends on; cached columns with another name are refused."""
        ...

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Height and width of the picture of a photo of this size; a batch has pictures of one size."""
        ...

    def place(self, width: int, height: int, box: Sequence[float], landmarks: np.ndarray) -> Place:
        """The position of the picture of a face; box and landmarks, (5, 2), in pixels of the photo."""
        ...

    def cut(self, photo: np.ndarray, box: Sequence[float], landmarks: np.ndarray) -> np.ndarray:
        """The picture, (height, width, 3) uint8, from a photo of the same type."""
        ...


@dataclass(frozen=True)
class PhotoFraming:
    """Whole photos in aspect-ratio buckets: resized to the nearest bucket and cropped around the face.

    Attributes:
        resolution: Pictures have about the area of a square with this side, in pixels.
        step: Sides are multiples of this number of pixels.
        max_ratio: Largest ratio of the longer side to the shorter side.

    Raises:
        DataError: The numbers give no bucket.
    """

    resolution: int = 512
    step: int = 64
    max_ratio: float = 2.0

    def __post_init__(self) -> None:
        if self.step < 8 or self.step % 8 or self.resolution < self.step or self.max_ratio < 1:
            raise DataError(f"step must be a multiple of 8 and at most the resolution, and max_ratio >= 1: {self}.")

    @property
    def name(self) -> str:
        return f"photo-{self.resolution}-{self.step}-{self.max_ratio:g}"

    @cached_property
    def buckets(self) -> list[tuple[int, int]]:
        """(height, width): for each width the largest height within the area."""
        area = self.resolution**2
        widths = range(self.step, int(self.resolution * self.max_ratio**0.5) + self.step, self.step)
        sizes = [(area // width // self.step * self.step, width) for width in widths]
        return [(h, w) for h, w in sizes if h and max(h / w, w / h) <= self.max_ratio]

    def size(self, width: int, height: int) -> tuple[int, int]:
        return min(self.buckets, key=lambda size: abs(np.log(size[1] / size[0] * height / width)))

    def place(self, width: int, height: int, box: Sequence[float], landmarks: np.ndarray) -> Place:
        rows, columns = self.size(width, height)
        (tall, wide), (top, left) = self._resized(width, height), self._corner(width, height, box)
        points = (landmarks + 0.5) * (wide / width, tall / height) - 0.5 - (left, top)  # of the centres of pixels
        return Place(rows, columns, points, (height, width, top, left, rows, columns))

    def cut(self, photo: np.ndarray, box: Sequence[float], landmarks: np.ndarray) -> np.ndarray:
        height, width = photo.shape[:2]
        rows, columns = self.size(width, height)
        (tall, wide), (top, left) = self._resized(width, height), self._corner(width, height, box)
        image = Image.fromarray(photo).resize((wide, tall), Image.Resampling.LANCZOS)
        return np.array(image.crop((left, top, left + columns, top + rows)))

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Height and width of the resized photo, which just covers its bucket."""
        rows, columns = self.size(width, height)
        scale = max(rows / height, columns / width)
        return max(rows, round(height * scale)), max(columns, round(width * scale))

    def _corner(self, width: int, height: int, box: Sequence[float]) -> tuple[int, int]:
        """Top and left of the crop: the face is as close to the centre as the photo allows."""
        (rows, columns), (tall, wide) = self.size(width, height), self._resized(width, height)
        x, y = (box[0] + box[2]) / 2 * wide / width, (box[1] + box[3]) / 2 * tall / height
        return int(np.clip(round(y - rows / 2), 0, tall - rows)), int(
            np.clip(round(x - columns / 2), 0, wide - columns)
        )


@dataclass(frozen=True)
class SquareFraming(PhotoFraming):
    """Squares of `resolution` pixels around the face, as large as the photo allows."""

    def size(self, width: int, height: int) -> tuple[int, int]:
        return self.resolution, self.resolution


@dataclass(frozen=True)
class AlignedFraming:
    """Aligned, upright faces: pictures for models of faces.

    Attributes:
        resolution: Side of the square picture.
        zoom: Scale of the ArcFace template.
        rise: Upward shift of the template, in its 112 pixels.
        pose: How the face is turned, scaled and shifted from there.
    """

    resolution: int = 64
    zoom: float = 0.9
    rise: float = 3.0
    pose: Pose | None = None

    @property
    def name(self) -> str:
        posed = "" if self.pose is None else f"-{self.pose}"
        return f"aligned-{self.resolution}-{self.zoom:g}-{self.rise:g}{posed}"

    @cached_property
    def template(self) -> np.ndarray:
        """(5, 2), where the landmarks of the mean face lie in the picture."""
        upright = ((ARCFACE_TEMPLATE - 56) * self.zoom + 56 - (0, self.rise)) * (self.resolution / 112)
        if self.pose is None:
            return upright
        (sine, cosine), middle = (f(np.radians(self.pose.angle)) for f in (np.sin, np.cos)), upright.mean(0)
        turn = self.pose.scale * np.array([[cosine, -sine], [sine, cosine]])
        return (upright - middle) @ turn.T + middle + np.multiply(self.pose.shift, self.resolution)

    def points(self, landmarks: np.ndarray) -> np.ndarray:
        """Convert landmarks of the photo, (5, 2), to coordinates of the picture."""
        ends = np.asarray(landmarks, np.float64), self.template
        to_picture = similarity_transform(*map(torch.from_numpy, ends)).numpy()
        return ends[0] @ to_picture[:, :2].T + to_picture[:, 2]

    def size(self, width: int, height: int) -> tuple[int, int]:
        return self.resolution, self.resolution

    def place(self, width: int, height: int, box: Sequence[float], landmarks: np.ndarray) -> Place:
        side = self.resolution
        # an IdentityNet learns from where this face's own landmarks lie
        points = self.template.copy() if self.pose is None else self.points(landmarks)
        return Place(side, side, points, (side, side, 0, 0, side, side))

    def cut(self, photo: np.ndarray, box: Sequence[float], landmarks: np.ndarray) -> np.ndarray:
        height, width = photo.shape[:2]
        border = min(max(height, width) // 2, min(height, width) - 1)  # mirrored: black borders would be learned
        return align_face(photo, landmarks, self.template, self.resolution, mirrored=border)


def framing_for(base: str, resolution: int) -> Framing:
    """Return the framing for training on a base model.

    A model of aligned faces, such as the one that comes with the package, has a file `framing.json` with `resolution`,
    `zoom` and `rise`; see `AlignedFraming`. All other models use whole photos.

    Args:
        base: Folder or hub id, or "tiny".
        resolution: Resolution of whole photos.

    Raises:
        DataError: `framing.json` cannot be read.
    """
    return aligned_framing(base) or PhotoFraming(resolution)


def aligned_framing(base: str) -> AlignedFraming | None:
    """The framing of a base model of aligned faces, or None for other models. Arguments and errors as above."""
    file = Path(base_place(base), FRAMING)
    if not file.is_file():
        return None
    return AlignedFraming(**arguments(AlignedFraming, read_json(file, DataError), str(file), DataError))
