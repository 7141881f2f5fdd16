"""The drawing of landmarks, against InstantID's recipe followed step by step."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest

from idgen.errors import IdgenError
from idgen.faces import draw_keypoints

FACE = np.array([[70.2, 90.7], [131.9, 84.3], [104.5, 121.0], [82.1, 160.6], [133.4, 155.2]])


def as_published(points: np.ndarray, width: int, height: int) -> np.ndarray:
    """One face: filled ellipses from each point to the nose on a float canvas, dimmed to 0.6, then discs."""
    colours = [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255)]
    canvas = np.zeros([height, width, 3])
    for limb in ([0, 2], [1, 2], [3, 2], [4, 2]):
        x, y = points[limb][:, 0], points[limb][:, 1]
        length = ((x[0] - x[1]) ** 2 + (y[0] - y[1]) ** 2) ** 0.5
        angle = math.degrees(math.atan2(y[0] - y[1], x[0] - x[1]))
        centre = (int(np.mean(x)), int(np.mean(y)))
        polygon = cv2.ellipse2Poly(centre, (int(length / 2), 4), int(angle), 0, 360, 1)
        canvas = cv2.fillConvexPoly(canvas.copy(), polygon, colours[limb[0]])  # pyright: ignore
    canvas = (canvas * 0.6).astype(np.uint8)
    for point, colour in zip(points, colours, strict=True):
        canvas = cv2.circle(canvas.copy(), (int(point[0]), int(point[1])), 10, colour, -1)
    return canvas.astype(np.uint8)


@pytest.mark.parametrize("seed", range(20))
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_pixel_is_as_published(seed: int, dtype: type) -> None:
    random = np.random.default_rng(seed)
    points = (FACE * random.uniform(0.3, 4) + random.normal(0, 15, (5, 2))).astype(dtype)
    expected = as_published(points, 512, 640)
    found = draw_keypoints(points, (512, 640))
    assert found.shape == (640, 512, 3)
    assert (found == expected).all()
    assert found.any()


def test_colours() -> None:
    found = draw_keypoints(FACE, (300, 300))
    at = [tuple(map(int, found[int(y), int(x)])) for x, y in FACE]
    assert at == [(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255)]
    assert {153} == set(np.unique(found)) - {0, 255}  # limbs are dimmed


def test_several_faces_lie_in_one_picture() -> None:
    other = FACE + np.array([200, 30])
    both = draw_keypoints(np.stack([FACE, other]), (400, 300))
    alone = np.maximum(draw_keypoints(FACE, (400, 300)), draw_keypoints(other, (400, 300)))
    assert (both == alone).all()


@pytest.mark.parametrize("bad", [np.zeros((4, 2)), np.zeros((1, 5, 3)), np.full((5, 2), np.nan)])
def test_bad_points(bad: np.ndarray) -> None:
    with pytest.raises(IdgenError, match="faces, 5, 2"):
        draw_keypoints(bad, (64, 64))


@pytest.mark.parametrize("side", [64, 128, 200])
def test_no_point_is_hidden_in_a_small_picture(side: int) -> None:
    points = FACE * side / 220
    found = draw_keypoints(points, (side, side)).astype(int)
    assert found.shape == (side, side, 3)
    colours = np.array([(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0), (255, 0, 255)])
    at = np.stack([found[int(y), int(x)] for x, y in points])
    assert (np.abs(at[:, None] - colours).sum(-1).argmin(1) == range(5)).all()
    assert (found.sum(-1) > 0).mean() < 0.2
