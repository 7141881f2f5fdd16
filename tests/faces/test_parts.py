"""Parts of a face: where their masks lie, and the features under them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from idgen.errors import EncoderMismatchError, ImageError
from idgen.faces import FaceAnalyzer, open_encoder
from idgen.faces.expression import ExpressionEncoder
from idgen.faces.part_names import PARTS
from idgen.faces.parts import POINTS, landmarks68, part_masks
from idgen.faces.parts_encoder import PartPooling, PartsEncoder

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


class Maps(nn.Module):
    """A network whose inner maps are known: 2 × 2 of two channels, and one position of one channel."""

    def inner_features(self, images: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        fine = torch.tensor([[[[1.0, 2], [3, 4]], [[10, 20], [30, 40]]]])
        return [fine.expand(len(images), -1, -1, -1), torch.full((len(images), 1, 1, 1), 7.0)], images


def test_features_of_parts_are_means_under_their_masks() -> None:
    """A part in the left half, one in a quarter of the last position and in all of the one before, and one outside."""
    masks = torch.zeros(1, 3, 4, 4)
    masks[0, 0, :, :2] = 1
    masks[0, 1, 2:, :2], masks[0, 1, 2, 2] = 1, 1
    found = PartPooling(Maps(), lambda images: masks)(torch.zeros(1, 3, 4, 4))
    left, last = (1 + 3) / 2, (3 + 0.25 * 4) / 1.25
    torch.testing.assert_close(found, torch.tensor([[left, 10 * left, 7, last, 10 * last, 7, 0, 0, 0]]))


def test_the_encoder_of_parts(astronaut: np.ndarray, analyzer: FaceAnalyzer) -> None:
    encoder = open_encoder("parts/dlib-resnet-v1")
    assert isinstance(encoder, PartsEncoder)
    assert (encoder.name, encoder.rows, encoder.dim) == ("parts/dlib-resnet-v1", len(PARTS), 4 * 480)
    face = FaceAnalyzer(analyzer.detector, encoder).find(astronaut[:220, 120:340])
    other = encoder.crop(astronaut[:220, 120:340], face.landmarks).copy()
    other[85:115] = 0  # the mouth
    before, after = (rows.reshape(4, -1) for rows in (face.embedding, encoder.embed(other[None])[0]))
    changed = dict(zip(PARTS, np.linalg.norm(after - before, axis=1) / np.linalg.norm(before, axis=1), strict=True))
    assert changed["mouth"] > 2 * changed["eyes"]
    with pytest.raises(EncoderMismatchError, match="needs a name"):
        PartsEncoder(analyzer.encoder, lambda images: images[:, :1])
    with pytest.raises(EncoderMismatchError, match="'expression-v1' has no network"):
        PartsEncoder(ExpressionEncoder())


def test_a_face_parser_finds_other_parts(analyzer: FaceAnalyzer) -> None:
    halves = PartsEncoder(analyzer.encoder, lambda images: images[:, :2], name="two-parts")
    assert (halves.name, halves.rows) == ("two-parts", 2)
    crops = np.zeros((1, 150, 150, 3), np.uint8)
    crops[0, :75, :, 0] = 255  # the first part is where there is red, and the second is nowhere
    first, second = halves.embed(crops).reshape(2, -1)
    assert first.any()
    assert not second.any()
