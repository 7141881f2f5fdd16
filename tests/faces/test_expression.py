"""Expressions of faces, as measures of their landmarks."""

from __future__ import annotations

import numpy as np
import torch

from idgen.faces.expression import MEASURES, ExpressionEncoder, measure, mirrored

SIDES = [*range(16, -1, -1), *range(26, 16, -1), *range(27, 31), *range(35, 30, -1)]
SIDES += [45, 44, 43, 42, 47, 46, 39, 38, 37, 36, 41, 40]
SIDES += [*range(54, 47, -1), *range(59, 54, -1), *range(64, 59, -1), *range(67, 64, -1)]
"""Index of each of the 68 landmarks in a mirrored picture."""


def faces(seed: int = 0) -> np.ndarray:
    """(4, 68, 2), random faces: two eyes, a nose and a mouth in their places."""
    points = np.random.default_rng(seed).normal(scale=2.0, size=(4, 68, 2))
    places = [(17, 27, 75, 25), (27, 36, 75, 70), (36, 42, 45, 44), (42, 48, 103, 44), (48, 68, 75, 100)]
    for first, end, x, y in [*places, (48, 49, -20, 0), (54, 55, 20, 0)]:
        points[:, first:end] += (x, y)
    return points


def test_position_size_and_rotation_of_the_head_have_no_influence() -> None:
    turn = np.array([[np.cos(0.3), np.sin(0.3)], [-np.sin(0.3), np.cos(0.3)]])
    np.testing.assert_allclose(measure(faces() @ turn * 1.7 + (20, -9)), measure(faces()), atol=1e-9)


def test_a_mirrored_face_has_mirrored_measures() -> None:
    other = faces()[:, SIDES] * (-1, 1) + (150, 0)
    np.testing.assert_allclose(measure(other), mirrored(torch.from_numpy(measure(faces()))), atol=1e-9)


def test_each_measure_follows_its_part() -> None:
    """Move some landmarks, and the measure of this name grows."""
    before = measure(faces())[0]
    moves: dict[str, tuple[list[int], tuple[float, float]]] = {
        "left inner brow": ([21], (0, -3)),
        "right outer brow": ([24, 25, 26], (0, -3)),
        "left mouth corner": ([48], (0, -3)),
        "right mouth width": ([54], (3, 0)),
        "mouth opening": ([66], (0, 3)),
        "lower lip": ([57], (0, 3)),
    }
    for name, (moved, by) in moves.items():
        points = faces()
        points[:, moved] += by
        assert measure(points)[0, MEASURES.index(name)] > before[MEASURES.index(name)], name


def test_a_smile_is_seen(astronaut: np.ndarray) -> None:
    """Eileen Collins smiles in the photo: the corners of her mouth are high, and her teeth show."""
    from idgen import FaceAnalyzer

    found = FaceAnalyzer(encoder=ExpressionEncoder()).find(astronaut)
    smile = dict(zip(MEASURES, found.embedding.tolist(), strict=True))
    assert min(smile["left mouth corner"], smile["right mouth corner"], smile["mouth opening"]) > 0
