"""Preference pairs made automatically: a picture is better than the same picture with its structure distorted."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ..errors import LossError


class PreferencePairs(NamedTuple):
    """Pictures, and pictures that are worse.

    Attributes:
        preferred: (batch, 3, height, width), the pictures, moved by less than a pixel.
        rejected: Of the same shape.
    """

    preferred: torch.Tensor
    rejected: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """Twists, swells and shrinks a picture around a few points, smoothly.

    ID-Aligner (arXiv 2404.15449, section 3.3) twists the estimated pose at random and has a ControlNet draw the
    distorted body. This does it to the pixels: it needs no other network, and around the landmarks of a face it bends
    what a bad adapter bends. Nothing but the structure shall tell the two apart: colours stay, and both pictures are
    read between the pixels, by the same fraction of one, so that both are equally soft.

    Attributes:
        points: How many places are distorted in each picture.
        radius: Smallest and largest reach of a distortion, in shares of the shorter side.
        angle: Smallest and largest turn at the middle, degrees, to either side.
        stretch: How much larger or smaller it may get at the middle; 0.4 is from 0.6 to 1.4 times the size.

    Raises:
        LossError: A range is empty or out of bounds.
    """

    points: int = 3
    radius: tuple[float, float] = (0.15, 0.35)
    angle: tuple[float, float] = (40.0, 120.0)
    stretch: float = 0.4

    def __post_init__(self) -> None:
        if self.points < 1 or not 0 < self.radius[0] <= self.radius[1] or not 0 <= self.angle[0] <= self.angle[1]:
            raise LossError(f"A distortion needs at least one point and ranges from low to high, not {self}.")
        if not 0 <= self.stretch < 1:
            raise LossError(f"stretch must be in [0, 1), not {self.stretch}.")

    def __call__(
        self, images: torch.Tensor, generator: torch.Generator | None = None, centres: torch.Tensor | None = None
    ) -> PreferencePairs:
        """Distort each picture in its own way.

        Args:
            images: (batch, 3, height, width).
            generator: On the processor; the same distortions on every device.
            centres: (batch, n, 2), x and y in pixels among which the places are drawn, landmarks for example; places
                are anywhere by default.

        Returns:
            The pictures, sound and distorted.
        """
        batch, _, height, width = images.shape
        size = torch.tensor([width, height], dtype=torch.float64)
        if centres is None:
            middle = torch.rand(batch, self.points, 2, generator=generator, dtype=torch.float64) * size
        else:
            chosen = torch.randint(centres.shape[1], (batch, self.points), generator=generator)
            middle = centres.detach().cpu().double().gather(1, chosen[..., None].expand(-1, -1, 2))
        radius = self._draw(self.radius, (batch, self.points), generator) * min(height, width)
        turn = self._draw(self.angle, (batch, self.points), generator) * math.pi / 180
        turn = turn * self._draw((-1, 1), turn.shape, generator).sign()
        stretch = self._draw((-self.stretch, self.stretch), turn.shape, generator)

        fraction = torch.rand(batch, 1, 1, 2, generator=generator, dtype=torch.float64)
        y, x = torch.meshgrid(torch.arange(height) + 0.5, torch.arange(width) + 0.5, indexing="ij")
        sound = torch.stack([x, y], -1).double().expand(batch, -1, -1, -1)
        where = sound
        for i in range(self.points):
            where = _twist(where, middle[:, i], radius[:, i], turn[:, i], stretch[:, i])
        grids = ((2 * (points + fraction) / size - 1).to(images) for points in (sound, where))
        read = (F.grid_sample(images, grid, padding_mode="reflection", align_corners=False) for grid in grids)
        return PreferencePairs(*read)

    @staticmethod
    def _draw(limits: tuple[float, float], shape: tuple[int, ...], generator: torch.Generator | None) -> torch.Tensor:
        return limits[0] + (limits[1] - limits[0]) * torch.rand(shape, generator=generator, dtype=torch.float64)


def _twist(
    where: torch.Tensor, middle: torch.Tensor, radius: torch.Tensor, turn: torch.Tensor, stretch: torch.Tensor
) -> torch.Tensor:
    """Where each pixel is read from: turned and stretched around the middle, fading to nothing at the radius.

    Args:
        where: (batch, height, width, 2).
        middle: (batch, 2).
        radius: (batch,); so are `turn` (radians) and `stretch`.
    """
    middle, radius, turn, stretch = (x[:, None, None] for x in (middle, radius, turn, stretch))
    offset = where - middle
    fade = (1 - (offset.norm(dim=-1) / radius).square()).clamp(min=0).square()
    angle, scale = turn * fade, 1 / (1 + stretch * fade)
    cos, sin = angle.cos(), angle.sin()
    x, y = offset.unbind(-1)
    return middle + scale[..., None] * torch.stack([cos * x - sin * y, sin * x + cos * y], -1)
