"""Embeddings with a gradient, from whole pictures and from parts of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from idgen.errors import EncoderMismatchError, LossError
from idgen.faces import ARCFACE_TEMPLATE, DLIB_TEMPLATE, DlibDetector, FaceAnalyzer
from idgen.faces.encoder import inner_features
from idgen.losses import FaceEmbedder, feature_loss, find_landmarks, identity_loss, patch_loss, symmetry_loss
from idgen.losses.patches import face_patches
from idgen.losses.symmetry import frontality, mirrored_halves

from .inputs import normal


@pytest.fixture(scope="module")
def embedder() -> FaceEmbedder:
    return FaceEmbedder.dlib()


@pytest.fixture(scope="module")
def portrait(astronaut: np.ndarray) -> torch.Tensor:
    """(1, 3, 512, 512) in [0, 1]."""
    return torch.from_numpy(astronaut).permute(2, 0, 1)[None].float() / 255


def test_the_embedding_is_the_analyzers(
    embedder: FaceEmbedder, portrait: torch.Tensor, astronaut: np.ndarray, analyzer: FaceAnalyzer
) -> None:
    landmarks, found = find_landmarks(portrait, analyzer.detector)
    assert found.tolist() == [True]
    expected = torch.from_numpy(analyzer.find(astronaut).embedding)[None]
    embedding = embedder(portrait, landmarks)
    assert identity_loss(embedding, expected).item() < 1e-3  # the analyzer rounds the crop to 8 bits


def test_no_face(portrait: torch.Tensor, embedder: FaceEmbedder) -> None:
    both = torch.cat([portrait, torch.full_like(portrait, 0.5)])
    landmarks, found = find_landmarks(both, DlibDetector())
    assert found.tolist() == [True, False]
    pictures = both.clone().requires_grad_(True)
    loss = identity_loss(embedder(pictures, landmarks), torch.ones(2, 128))
    torch.where(found, loss, 0).sum().backward()
    assert loss.isfinite().all()
    assert pictures.grad is not None
    assert pictures.grad[0].any()
    assert not pictures.grad[1].any()


def test_the_largest_face_is_taken(portrait: torch.Tensor) -> None:
    small = nn.functional.interpolate(portrait, scale_factor=0.5, mode="area")
    picture = torch.full((1, 3, 512, 800), 0.5)
    picture[..., 512 - 256 : 512, :256] = small
    picture[..., 288:] = portrait
    points, found = find_landmarks(picture, DlibDetector())
    assert found.all()
    assert points[0, :, 0].min() > 288


def test_what_the_warp_reads_lies_in_the_box(embedder: FaceEmbedder) -> None:
    """Pixels beyond the box have no gradient; faces of all sizes, turned, at the edge."""
    generator = torch.Generator().manual_seed(0)
    template = torch.from_numpy(DLIB_TEMPLATE)
    for scale in (0.2, 0.7, 1.3, 2.6):
        turn = torch.rand((), generator=generator).double() * 6
        rotation = torch.stack([turn.cos(), -turn.sin(), turn.sin(), turn.cos()]).view(2, 2)
        points = ((template - 75) * scale) @ rotation.T + torch.tensor([300.0, 330.0])
        points = points + torch.randn(5, 2, generator=generator)
        picture = torch.rand(1, 3, 640, 640, generator=generator).requires_grad_(True)
        embedder(picture, points[None]).square().sum().backward()
        assert picture.grad is not None
        rows, columns = picture.grad[0].abs().sum(0).nonzero().unbind(1)
        x0, y0, x1, y1 = embedder.boxes(points[None])[0].tolist()
        assert x0 <= columns.min() <= columns.max() < x1
        assert y0 <= rows.min() <= rows.max() < y1
        assert (x1 - x0) * (y1 - y0) < 3.5 * (columns.max() - columns.min()) * (rows.max() - rows.min()) + 200


def test_a_part_of_the_picture_gives_the_same_embedding(embedder: FaceEmbedder, portrait: torch.Tensor) -> None:
    landmarks = find_landmarks(portrait, DlibDetector()).points
    x0, y0, x1, y1 = embedder.boxes(landmarks)[0].floor().int().tolist()
    crop = portrait[..., y0 : y1 + 1, x0 : x1 + 1]
    found = embedder(crop, landmarks - torch.tensor([x0, y0]))
    torch.testing.assert_close(found, embedder(portrait, landmarks), atol=1e-4, rtol=0)


def test_gradient_is_that_of_finite_differences() -> None:
    """Of the identity loss in the pixels: through the warp and the recogniser, in float64."""
    double = FaceEmbedder.dlib()
    double.encoder.double()
    picture = torch.rand(1, 3, 24, 24, generator=torch.Generator().manual_seed(0)).double().requires_grad_(True)
    points = torch.from_numpy(DLIB_TEMPLATE)[None] * 24 / 150
    target = torch.ones(1, 128).double()

    def loss(x: torch.Tensor) -> torch.Tensor:
        return identity_loss(double(x, points), target)

    assert torch.autograd.gradcheck(loss, (picture,), fast_mode=True)


def test_an_encoder_that_is_not_frozen_is_refused() -> None:
    with pytest.raises(LossError, match="frozen"):
        FaceEmbedder(name="test", encoder=nn.Linear(3, 3), template=ARCFACE_TEMPLATE, size=112)


def test_embeddings_of_another_encoder_are_refused(embedder: FaceEmbedder) -> None:
    embedder.check_same_encoder("dlib-resnet-v1")
    with pytest.raises(EncoderMismatchError, match=r"dlib-resnet-v1.*sface"):
        embedder.check_same_encoder("sface")


def test_features_are_the_last_of_each_stage(embedder: FaceEmbedder) -> None:
    """The layers of the loss on features, which the recipe of the built-in model was trained with."""
    images = torch.rand(2, 3, 150, 150, generator=torch.Generator().manual_seed(0))
    blocks: list[torch.Tensor] = []
    handles = [b.register_forward_hook(lambda *a: blocks.append(a[-1])) for b in embedder.encoder.blocks]  # pyright: ignore
    expected = embedder.encoder(images)
    for handle in handles:
        handle.remove()
    found, embedding = inner_features(embedder.encoder, images)
    assert torch.equal(embedding, expected)
    assert all(torch.equal(each, blocks[i]) for each, i in zip(found, (2, 6, 9, 12), strict=True))
    with pytest.raises(EncoderMismatchError, match="Linear does not return"):
        inner_features(nn.Linear(2, 2), images)


def test_the_loss_on_features_is_a_mean_of_relative_errors() -> None:
    """|1 − 2| + |3 − 2| by 2 + 2 is a half; 6 against 4 too; their mean, for the first of two samples."""
    found = [torch.tensor([[[[1.0, 3.0]]], [[[2.0, 2.0]]]]), torch.tensor([[[[6.0]]], [[[4.0]]]])]
    wanted = [torch.full((2, 1, 1, 2), 2.0), torch.full((2, 1, 1, 1), 4.0)]
    assert feature_loss(found, wanted).tolist() == [0.5, 0.0]
    assert feature_loss([x.clone() for x in wanted], [torch.zeros_like(x) for x in wanted]).isfinite().all()
    for wrong in ([], wanted[:1], [wanted[1], wanted[0]]):
        with pytest.raises(LossError, match="same layers"):
            feature_loss(found, wrong)


@pytest.mark.parametrize("width", [5, 6])
def test_halves_are_completed_by_their_mirror_image(width: int) -> None:
    crops = torch.arange(float(width)).expand(1, 1, 2, width)
    left, right = mirrored_halves(crops)
    assert left[0, 0, 0].tolist() == ([0, 1, 2, 1, 0] if width == 5 else [0, 1, 2, 2, 1, 0])
    assert right[0, 0, 0].tolist() == ([4, 3, 2, 3, 4] if width == 5 else [5, 4, 3, 3, 4, 5])
    symmetric = left.clone()
    assert all(torch.equal(half, symmetric) for half in mirrored_halves(symmetric))


def test_frontality_and_the_symmetry_loss() -> None:
    """The nose in the middle, a quarter and half of the eye distance aside, and beyond; also of a rolled face."""
    faces = torch.tensor([[[10.0, 10], [30, 10], [x, 20], [14, 30], [26, 30]] for x in (20, 25, 30, 40)])
    turn = torch.tensor([[0.6, -0.8], [0.8, 0.6]])
    for points in (faces, faces @ turn, 3 * faces + 7):
        assert frontality(points).tolist() == pytest.approx([1, 0.5, 0, 0], abs=1e-6)
    left, right = torch.tensor([[1.0, 0.0]] * 2), torch.tensor([[0.6, 0.8], [2.0, 0.0]])
    assert symmetry_loss((left, right), torch.tensor([0.5, 1.0])).tolist() == pytest.approx([0.5 * 0.4, 0])


def test_patches_are_on_eyes_nose_and_mouth() -> None:
    crops = torch.zeros(1, 3, 112, 112)
    points = np.concatenate([ARCFACE_TEMPLATE[:3], ARCFACE_TEMPLATE[3:].mean(0, keepdims=True)]).round().astype(int)
    for i, (x, y) in enumerate(points):
        crops[0, :, y, x] = i + 1
    patches = face_patches(crops, ARCFACE_TEMPLATE)
    assert patches.shape == (1, 4, 3, 35, 35)
    for i, patch in enumerate(patches[0]):
        assert {*patch[:, 16:19, 16:19].unique().tolist()} == {0, i + 1}
    expected = sum((i + 1) * int((patch == i + 1).sum()) for i in range(4) for patch in patches[0]) / patches.numel()
    assert patch_loss(patches, torch.zeros_like(patches)).item() == pytest.approx(expected)
    assert face_patches(crops, ARCFACE_TEMPLATE - 200).shape == patches.shape  # never beyond the crop


def test_crops_have_a_gradient_through_halves_and_patches() -> None:
    crops = normal(1, 1, 8, 8, seed=3).requires_grad_(True)
    torch.autograd.gradcheck(mirrored_halves, (crops,))
    torch.autograd.gradcheck(lambda x: face_patches(x, ARCFACE_TEMPLATE / 14), (crops,))
