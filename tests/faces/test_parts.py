"""Masks of parts of a face: where they lie, and that they follow the face."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from idgen.errors import ImageError
from idgen.faces import FaceAnalyzer
from idgen.faces.part_names import PARTS
from idgen.faces.parts import POINTS, landmarks68, part_masks

FACE = torch.tensor([[[20.0, 22], [44, 22], [32, 34], [24, 46], [40, 46]]])


def inside(mask: torch.Tensor, point: torch.Tensor) -> bool:
    x, y = point.tolist()
    return bool(mask[int(y), int(x)])


def test_each_part_is_around_its_landmarks() -> None:
    eyes, nose, mouth = part_masks(FACE, 64, 64)[0]
    left, right, tip, corner, other = FACE[0]
    for mask, points in ((eyes, (left, right)), (nose, (tip,)), (mouth, (corner, other, (corner + other) / 2))):
        assert all(inside(mask, point) for point in points)
        assert not any(inside(mask, point) for point in FACE[0] if not any(torch.equal(point, own) for own in points))
    face = part_masks(FACE, 64, 64, ("face",))[0, 0]
    assert torch.equal(face * eyes, eyes)
    assert torch.equal(face * mouth, mouth)
    assert 0.25 < face.mean() < 0.7


@pytest.mark.parametrize(("turn", "scale"), [(0, 2.0), (90, 1.0), (30, 1.5), (180, 1.0)])
def test_masks_follow_a_face_that_turns_and_grows(turn: float, scale: float) -> None:
    """The mask of the moved landmarks has the area and the place of the moved mask."""
    angle = torch.deg2rad(torch.tensor(turn))
    rotation = scale * torch.stack([torch.stack([angle.cos(), -angle.sin()]), torch.stack([angle.sin(), angle.cos()])])
    moved = (FACE - 32) @ rotation.T + 80
    before, after = part_masks(FACE, 64, 64, PARTS)[0], part_masks(moved, 160, 160, PARTS)[0]
    for one, other in zip(before, after, strict=True):
        assert float(other.sum()) == pytest.approx(float(one.sum()) * scale**2, rel=0.05)
        middle = torch.stack([one.nonzero().float().mean(0), other.nonzero().float().mean(0)]).flip(1) + 0.5
        assert torch.allclose((middle[0] - 32) @ rotation.T + 80, middle[1], atol=0.6)


def test_68_landmarks_give_the_same_parts(astronaut: np.ndarray, analyzer: FaceAnalyzer) -> None:
    [face] = analyzer.detector.detect(astronaut)
    points = landmarks68(astronaut, face)
    for eye, name in enumerate(("left eye", "right eye")):
        assert np.linalg.norm(points[POINTS[name]].mean(0) - face.landmarks[eye]) < 4
    five, many = (part_masks(torch.from_numpy(p)[None], 512, 512)[0] for p in (face.landmarks, points))
    for one, other in zip(five, many, strict=True):
        assert float((one * other).sum() / torch.maximum(one, other).sum()) > 0.35


@pytest.mark.parametrize("shape", [(5, 2), (1, 7, 2), (1, 5, 3)])
def test_other_landmarks_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="must have shape"):
        part_masks(torch.zeros(shape), 8, 8)
