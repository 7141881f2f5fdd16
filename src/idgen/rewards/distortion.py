"""Automatic preference pairs: a picture is better than the same picture with a distorted structure."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ..errors import LossError


class PreferencePairs(NamedTuple):
    """Pairs of pictures.

    Attributes:
        preferred: (batch, 3, height, width), the pictures, shifted by less than a pixel.
        rejected: The distorted pictures, of the same shape.
    """

    preferred: torch.Tensor
    rejected: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class Distortion:
    """Rotates and scales a picture smoothly around a few points.

    ID-Aligner (arXiv 2404.15449, section 3.3) distorts the estimated pose at random and generates the distorted body
    with a ControlNet. Here the pixels are distorted, which needs no other network; around the landmarks of a face this
    resembles the errors of a bad adapter. Both pictures differ in structure only: colours stay the same, and both are
    interpolated at the same fraction of a pixel, so that they are equally sharp.

    Attributes:
        points: Number of distortions per picture.
        radius: Smallest and largest radius of a distortion, as a share of the shorter side.
        angle: Smallest and largest rotation at the centre, degrees, in either direction.
        stretch: Largest change of size at the centre; 0.4 is 0.6 to 1.4 times the size.

    Raises:
        LossError: A value is out of its range.
    """

    points: int = 3
    radius: tuple[float, float] = (0.15, 0.35)
    angle: tuple[float, float] = (40.0, 120.0)
    stretch: float = 0.4

    def __post_init__(self) -> None:
        if self.points < 1 or not 0 < self.radius[0] <= self.radius[1] or not 0 <= self.angle[0] <= self.angle[1]:
            raise LossError(f"points must be >= 1, and radius and angle (low, high) with low <= high, not {self}.")
        if not 0 <= self.stretch < 1:
            raise LossError(f"stretch must be in [0, 1), not {self.stretch}.")

    def __call__(
        self, images: torch.Tensor, generator: torch.Generator | None = None, centres: torch.Tensor | None = None
    ) -> PreferencePairs:
        """Distort each picture at random.

        Args:
            images: (batch, 3, height, width).
            generator: On the CPU, so that the distortions are the same on every device.
            centres: (batch, n, 2), x and y in pixels, for example landmarks: the points are drawn from these. By
                default they are anywhere.
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
    """Source position of each pixel: rotated and scaled around the middle, with no change beyond the radius.

    Args:
        where: (batch, height, width, 2), x and y in pixels.
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
