"""The one warp against independent arithmetic, and its gradient."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from skimage.transform import SimilarityTransform

from idgen.faces import ARCFACE_TEMPLATE, DLIB_TEMPLATE, FaceAnalyzer, align_face, similarity_transform, warp_faces


@pytest.fixture(scope="module")
def landmarks(analyzer: FaceAnalyzer, astronaut: np.ndarray) -> np.ndarray:
    return analyzer.detector.detect(astronaut)[0].landmarks


def test_similarity_equals_skimage(landmarks: np.ndarray) -> None:
    expected = SimilarityTransform.from_estimate(landmarks, ARCFACE_TEMPLATE).params[:2]
    ours = similarity_transform(torch.from_numpy(landmarks), torch.from_numpy(ARCFACE_TEMPLATE))
    np.testing.assert_allclose(ours.numpy(), expected, atol=1e-9)


@pytest.mark.parametrize(("template", "size"), [(ARCFACE_TEMPLATE, 112), (DLIB_TEMPLATE, 150)])
def test_crop_equals_opencv_within_a_grey_level(
    astronaut: np.ndarray, landmarks: np.ndarray, template: np.ndarray, size: int
) -> None:
    """At a scale where nothing is averaged first; cv2 samples in float when the picture is float."""
    matrix = similarity_transform(torch.from_numpy(landmarks), torch.from_numpy(template)).numpy()
    assert np.linalg.norm(matrix[:, 0]) > 0.5
    coordinates = np.stack([*np.meshgrid(np.arange(size), np.arange(size)), np.ones((size, size))], -1)
    where = (coordinates @ cv2.invertAffineTransform(matrix).T).astype(np.float32)
    expected = _bilinear(astronaut.astype(np.float64), where)
    assert np.abs(align_face(astronaut, landmarks, template, size) - expected).max() <= 1


def _bilinear(image: np.ndarray, where: np.ndarray) -> np.ndarray:
    """Bilinear interpolation, written out."""
    x0, y0 = np.floor(where[..., 0]).astype(int), np.floor(where[..., 1]).astype(int)
    fx, fy = (where[..., 0] - x0)[..., None], (where[..., 1] - y0)[..., None]
    top = image[y0, x0] * (1 - fx) + image[y0, x0 + 1] * fx
    bottom = image[y0 + 1, x0] * (1 - fx) + image[y0 + 1, x0 + 1] * fx
    return top * (1 - fy) + bottom * fy


def test_tensor_and_array_agree_within_a_grey_level(astronaut: np.ndarray, landmarks: np.ndarray) -> None:
    for factor in (1, 3, 6):  # from enlarged to averaged
        image = cv2.resize(astronaut, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
        tensor = torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255
        crop = warp_faces(tensor, torch.from_numpy(landmarks * factor)[None])[0].permute(1, 2, 0).numpy() * 255
        assert np.abs(crop - align_face(image, landmarks * factor)).max() <= 1


def test_large_faces_do_not_alias(astronaut: np.ndarray, landmarks: np.ndarray) -> None:
    noisy = np.repeat(np.repeat(astronaut, 8, 0), 8, 1).astype(np.int16)
    noisy += np.random.default_rng(0).integers(-60, 60, noisy.shape, dtype=np.int16)
    crop = align_face(noisy.clip(0, 255).astype(np.uint8), landmarks * 8 + 3.5)
    difference = np.abs(crop.astype(int) - align_face(astronaut, landmarks))
    assert difference.mean() < 12


@pytest.mark.parametrize("factor", [1, 2, 5])
@pytest.mark.parametrize("place", [(700, 500), (5, 3), (1399, 1107), (-4000, 9000)])
def test_the_part_of_a_large_photo_gives_the_crop_of_the_whole(factor: int, place: tuple[int, int]) -> None:
    """Also at its edges, and beyond them. Coordinates are rounded otherwise, by less than a grey level."""
    photo = np.random.default_rng(0).integers(0, 256, (1203, 1501, 3), np.uint8)
    angle = np.exp(0.4j) * factor
    points = (ARCFACE_TEMPLATE - ARCFACE_TEMPLATE.mean(0)) @ [1, 1j] * angle
    points = np.stack([points.real, points.imag], 1) + place
    whole = torch.from_numpy(photo).permute(2, 0, 1)[None].double()
    expected = warp_faces(whole, torch.from_numpy(points)[None])[0].permute(1, 2, 0).numpy()
    assert np.abs(align_face(photo, points) - expected).max() < 0.52


def test_gradient_reaches_the_pixels_and_only_them() -> None:
    image = torch.rand(2, 1, 20, 24, dtype=torch.float64, requires_grad=True)
    points = torch.from_numpy(ARCFACE_TEMPLATE / 8)[None] + torch.tensor([[[3.0, 4.0]], [[5.0, 2.0]]])
    points.requires_grad_(True)
    torch.autograd.gradcheck(lambda x: warp_faces(x, points, ARCFACE_TEMPLATE / 14, 8), (image,))
    warp_faces(image, points, ARCFACE_TEMPLATE / 14, 8).sum().backward()
    assert points.grad is None


def test_beyond_the_image_is_black(astronaut: np.ndarray) -> None:
    assert align_face(astronaut, ARCFACE_TEMPLATE - 500).max() == 0
