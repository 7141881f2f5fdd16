"""Random poses of aligned faces: how they are turned, scaled and shifted in their pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from ..errors import DataError

if TYPE_CHECKING:
    import numpy as np


class Pose(NamedTuple):
    """A change of where a face lies in its picture.

    Attributes:
        angle: Degrees that it is turned by, clockwise.
        scale: Factor of its size.
        shift: To the right and down, shares of the picture's side.
    """

    angle: float
    scale: float
    shift: tuple[float, float]


@dataclass(frozen=True)
class Poses:
    """Random poses of aligned faces, for an IdentityNet: without them, all landmarks lie at the same places.

    Attributes:
        angle: Faces are turned by up to this many degrees to either side.
        scale: Smallest and largest factor of a face's size.
        shift: Faces are moved by up to this share of the picture's side in each direction.

    Raises:
        DataError: A range is empty or negative.
    """

    angle: float = 0.0
    scale: tuple[float, float] = (1.0, 1.0)
    shift: float = 0.0

    def __post_init__(self) -> None:
        if self.angle < 0 or self.shift < 0 or not 0 < self.scale[0] <= self.scale[1]:
            raise DataError(f"Poses need angle >= 0, shift >= 0 and 0 < scale[0] <= scale[1]: {self}.")

    def __bool__(self) -> bool:
        return self != Poses()

    def draw(self, random: np.random.Generator) -> Pose:
        """A pose, uniform in each range."""
        x, y = random.uniform(-self.shift, self.shift, 2).tolist()
        return Pose(random.uniform(-self.angle, self.angle), random.uniform(*self.scale), (x, y))
