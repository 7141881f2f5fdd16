"""What part of a photo becomes the training picture, and where its landmarks are then."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image

from ..errors import DataError
from ..faces import ARCFACE_TEMPLATE, align_face, similarity_transform
from .poses import Pose


class Place(NamedTuple):
    """Where a training picture lies in a photo; known without the photo's pixels.

    Attributes:
        height: Of the picture.
        width: Of the picture.
        landmarks: (5, 2), in its pixels.
        time_ids: What SDXL is told: height and width of the photo, top and left of the crop in the resized photo,
            height and width of the picture.
    """

    height: int
    width: int
    landmarks: np.ndarray
    time_ids: tuple[int, int, int, int, int, int]

    def mirrored(self) -> np.ndarray:
        """(5, 2), the landmarks of the mirror image: left and right change places too."""
        return self.landmarks[[1, 0, 2, 4, 3]] * (-1, 1) + (self.width - 1, 0)


class Framing(Protocol):
    """One way to cut training pictures."""

    @property
    def name(self) -> str:
        """Says all that decides the picture: caches made with another name are refused."""
        ...

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Height and width of the picture that a photo of this size becomes; only those of one size share a batch."""
        ...

    def place(self, width: int, height: int, box: Sequence[float], landmarks: np.ndarray) -> Place:
        """Where the picture of a face lies; box and landmarks, (5, 2), in pixels of the photo."""
        ...

    def cut(self, photo: np.ndarray, box: Sequence[float], landmarks: np.ndarray) -> np.ndarray:
        """The picture itself, (height, width, 3) uint8, of a photo of the same type."""
        ...


@dataclass(frozen=True)
class PhotoFraming:
    """The whole photo as far as it fits: the bucket of the nearest aspect ratio, the crop around the face.

    Attributes:
        resolution: Pictures have about its square in pixels.
        step: Sides are multiples of it.
        max_ratio: Of the longer side to the shorter.

    Raises:
        DataError: The numbers give no bucket.
    """

    resolution: int = 512
    step: int = 64
    max_ratio: float = 2.0

    def __post_init__(self) -> None:
        if self.step < 8 or self.step % 8 or self.resolution < self.step or self.max_ratio < 1:
            raise DataError(f"Buckets need a step that is a multiple of 8, and a resolution not below it: {self}.")

    @property
    def name(self) -> str:
        return f"photo-{self.resolution}-{self.step}-{self.max_ratio:g}"

    @cached_property
    def buckets(self) -> list[tuple[int, int]]:
        """(height, width): for each width the highest picture that is no larger than the resolution's square."""
        area = self.resolution**2
        widths = range(self.step, int(self.resolution * self.max_ratio**0.5) + self.step, self.step)
        sizes = [(area // width // self.step * self.step, width) for width in widths]
        return [(h, w) for h, w in sizes if h and max(h / w, w / h) <= self.max_ratio]

    def size(self, width: int, height: int) -> tuple[int, int]:
        return min(self.buckets, key=lambda size: abs(np.log(size[1] / size[0] * height / width)))

    def place(self, width: int, height: int, box: Sequence[float], landmarks: np.ndarray) -> Place:
        rows, columns = self.size(width, height)
        (tall, wide), (top, left) = self._resized(width, height), self._corner(width, height, box)
        points = (landmarks + 0.5) * (wide / width, tall / height) - 0.5 - (left, top)  # of the middles of pixels
        return Place(rows, columns, points, (height, width, top, left, rows, columns))

    def cut(self, photo: np.ndarray, box: Sequence[float], landmarks: np.ndarray) -> np.ndarray:
        height, width = photo.shape[:2]
        rows, columns = self.size(width, height)
        (tall, wide), (top, left) = self._resized(width, height), self._corner(width, height, box)
        image = Image.fromarray(photo).resize((wide, tall), Image.Resampling.LANCZOS)
        return np.array(image.crop((left, top, left + columns, top + rows)))

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        """Height and width of the photo once it just covers its bucket."""
        rows, columns = self.size(width, height)
        scale = max(rows / height, columns / width)
        return max(rows, round(height * scale)), max(columns, round(width * scale))

    def _corner(self, width: int, height: int, box: Sequence[float]) -> tuple[int, int]:
        """Top and left: the face as near to the middle as the photo's borders allow."""
        (rows, columns), (tall, wide) = self.size(width, height), self._resized(width, height)
        x, y = (box[0] + box[2]) / 2 * wide / width, (box[1] + box[3]) / 2 * tall / height
        return int(np.clip(round(y - rows / 2), 0, tall - rows)), int(
            np.clip(round(x - columns / 2), 0, wide - columns)
        )


@dataclass(frozen=True)
class AlignedFraming:
    """The face alone, turned upright: what models of faces draw.

    Attributes:
        resolution: Side of the square picture.
        zoom: The ArcFace template is made smaller by this factor …
        rise: … and moved up by so many of its 112 pixels.
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

    def size(self, width: int, height: int) -> tuple[int, int]:
        return self.resolution, self.resolution

    def place(self, width: int, height: int, box: Sequence[float], landmarks: np.ndarray) -> Place:
        side = self.resolution
        points = self.template.copy()
        if self.pose is not None:  # an IdentityNet learns from where this face's own landmarks lie
            to_picture = similarity_transform(*map(torch.from_numpy, (np.asarray(landmarks, float), points))).numpy()
            points = landmarks @ to_picture[:, :2].T + to_picture[:, 2]
        return Place(side, side, points, (side, side, 0, 0, side, side))

    def cut(self, photo: np.ndarray, box: Sequence[float], landmarks: np.ndarray) -> np.ndarray:
        height, width = photo.shape[:2]
        border = min(max(height, width) // 2, min(height, width) - 1)  # mirrored: a black edge would be learned
        return align_face(photo, landmarks, self.template, self.resolution, mirrored=border)
