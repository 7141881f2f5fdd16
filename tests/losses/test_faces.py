"""Embeddings with a gradient, from whole pictures and from parts of them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from idgen.errors import EncoderMismatchError, LossError
from idgen.faces import ARCFACE_TEMPLATE, DLIB_TEMPLATE, DlibDetector, FaceAnalyzer
from idgen.losses import FaceEmbedder, find_landmarks, identity_loss


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
