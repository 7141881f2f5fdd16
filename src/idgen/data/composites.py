"""Composites: photos of one person each, next to each other or overlapping on a background."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class Tile(NamedTuple):
    """A square photo of one person.

    Attributes:
        picture: (side, side, 3), uint8.
        landmarks: (5, 2), in its pixels.
    """

    picture: np.ndarray
    landmarks: np.ndarray


class Composite(NamedTuple):
    """A picture made of tiles.

    Attributes:
        picture: (height, width, 3), uint8.
        landmarks: (tiles, 5, 2), in its pixels.
        visible: (tiles,), whether all landmarks lie in the picture and no later tile covers one.
    """

    picture: np.ndarray
    landmarks: np.ndarray
    visible: np.ndarray


def tile_side(height: int, width: int, count: int, overlap: float) -> int:
    """The side of tiles that fill the width, each covering a share of the one before, and fit the height."""
    return max(1, min(height, int(width / (count - (count - 1) * overlap))))


def compose(tiles: Sequence[Tile], height: int, width: int, overlap: float, random: np.random.Generator) -> Composite:
    """Place tiles from left to right on a plain background, where there is room at random positions.

    A tile has a soft left edge where it covers the one before it.

    Args:
        tiles: Of one size, at most as high as the picture.
        height: Of the picture, pixels.
        width: Of the picture, pixels.
        overlap: Share of a tile's width that the next one covers; more if they would not fit.
        random: Draws the background and the positions.
    """
    side, gaps = len(tiles[0].picture), max(len(tiles) - 1, 1)
    step = min(side * (1 - overlap), (width - side) / gaps)
    spare = width - side - step * (len(tiles) - 1)
    shifts = np.sort(random.uniform(0, max(spare, 0), len(tiles)))
    left = [int(i * step + shift) for i, shift in enumerate(shifts)]
    top = random.integers(0, height - side + 1, len(tiles))
    picture = np.broadcast_to(_background(random, height), (height, width, 3)).copy()
    for i, tile in enumerate(tiles):
        area = (slice(top[i], top[i] + side), slice(left[i], left[i] + side))
        covered = 0 if i == 0 else max(left[i - 1] + side - left[i], 0)
        alpha = np.minimum((np.arange(side) + 1) / (covered // 2 + 1), 1)[None, :, None]
        picture[area] = alpha * tile.picture + (1 - alpha) * picture[area]
    corners = np.stack([left, top], 1)[:, None]
    landmarks = np.stack([tile.landmarks for tile in tiles]) + corners
    inside = np.array(((landmarks >= 0) & (landmarks <= (width - 1, height - 1))).all((1, 2)))
    for i, points in enumerate(landmarks[:-1]):
        in_later = (points[:, None] >= corners[i + 1 :, 0]) & (points[:, None] < corners[i + 1 :, 0] + side)
        inside[i] &= not in_later.all(-1).any()
    return Composite(np.round(picture).astype(np.uint8), landmarks, inside)


def _background(random: np.random.Generator, height: int) -> np.ndarray:
    """(height, 1, 3), a colour that changes from top to bottom."""
    top, bottom = random.uniform(0, 255, (2, 3))
    return np.linspace(top, 0.7 * top + 0.3 * bottom, height)[:, None]
