"""Pictures of several people: how they are made, and where the adapter is told that each person is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, TypeAlias

from ..errors import DataError

Masks: TypeAlias = Literal["boxes", "soft", "none"]
"""What the adapter is told of where people are: the box around each face, the same box with soft edges, or nothing."""

MOST_PEOPLE = 4


@dataclass(frozen=True, kw_only=True)
class PeopleOptions:
    """Pictures of several people, with `--group photo`.

    Attributes:
        masks: Where each person conditions the picture: in the box around the face ("boxes"), the same with soft
            edges ("soft"), or everywhere ("none"), so that the adapter learns to place people without masks.
        count: Smallest and largest number of people in a picture, 1 to 4. Further faces of a photo are not
            conditioned.
        composites: Share of pictures that are put together from photos of one person each, while training. Photos
            with too few people always are; so is every picture of a model of aligned faces, such as the built-in one,
            whose pictures are as many faces wide as the largest `count`.
        overlap: Largest share of a photo's width in a composite that the next one covers; 0 for side by side.

    Raises:
        DataError: A value is out of its range.
    """

    masks: Masks = "boxes"
    count: tuple[int, int] = (1, MOST_PEOPLE)
    composites: float = 0.5
    overlap: float = 0.2

    def __post_init__(self) -> None:
        if not 1 <= self.count[0] <= self.count[1] <= MOST_PEOPLE:
            raise DataError(f"people.count must be two ascending numbers from 1 to {MOST_PEOPLE}, not {self.count}.")
        if not 0 <= self.composites <= 1 or not 0 <= self.overlap <= 0.5:
            raise DataError(
                f"people.composites must be in [0, 1] and people.overlap in [0, 0.5], not {self.composites} and "
                f"{self.overlap}."
            )
