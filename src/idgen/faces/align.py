"""Aligned face crops, by one differentiable warp for arrays and tensors."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F

ARCFACE_TEMPLATE = np.array(
    [[38.2946, 51.6963], [73.5318, 51.5014], [56.0252, 71.7366], [41.5493, 92.3655], [70.7299, 92.2041]]
)
"""Positions of the five landmarks in the 112-px crops of ArcFace networks (insightface, `face_align.py`)."""

DLIB_TEMPLATE = np.array([[46.23, 44.29], [102.02, 44.04], [76.71, 77.51], [49.57, 99.85], [99.25, 98.99]])
"""Positions of the five landmarks in the 150-px crops that dlib's network was trained on."""

FFHQ_TEMPLATE = np.array(
    [
        [192.98138, 239.94708],
        [318.90277, 240.1936],
        [256.63416, 314.01935],
        [201.26117, 371.41043],
        [313.08905, 371.15118],
    ]
)
"""Positions of the five landmarks in the 512-px crops of face restoration (facexlib), which PuLID reads."""

_LARGE = 1 << 20  # pixels; of larger photos only the part around the face is converted to floats


def similarity_transform(source: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Fit scale, rotation and shift from one set of points to another by least squares, without reflection.

    With points as complex numbers this is the regression `target = k · source + t` (Umeyama 1991 in the plane).

    Args:
        source: (..., points, 2).
        target: (..., points, 2).

    Returns:
        (..., 2, 3) matrices that map (x, y, 1) of the source to the target.
    """
    source_mean, target_mean = source.mean(-2, keepdim=True), target.mean(-2, keepdim=True)
    a, b = source - source_mean, target - target_mean
    power = a.square().sum((-1, -2))
    real = (a * b).sum((-1, -2)) / power
    imaginary = (a[..., 0] * b[..., 1] - a[..., 1] * b[..., 0]).sum(-1) / power
    linear = torch.stack([real, -imaginary, imaginary, real], -1).unflatten(-1, (2, 2))
    shift = target_mean.mT - linear @ source_mean.mT
    return torch.cat([linear, shift], -1)


def warp_faces(
    images: torch.Tensor, landmarks: torch.Tensor, template: np.ndarray = ARCFACE_TEMPLATE, size: int = 112
) -> torch.Tensor:
    """Crop aligned faces from images; differentiable in the images.

    Images with faces larger than the crop are first averaged over blocks of pixels, to avoid aliasing.

    Args:
        images: (batch, channels, height, width), any float type and range.
        landmarks: (batch, 5, 2), pixels; treated as constants.
        template: (5, 2), positions of the landmarks in the crop.
        size: Side of the square crop in pixels.

    Returns:
        (batch, channels, size, size); zero outside of the image.
    """
    points = landmarks.detach().to(device=images.device, dtype=torch.float64)
    to_crop = similarity_transform(points, torch.as_tensor(template, device=images.device).expand_as(points))
    to_image = _invert(to_crop)
    block = to_image[:, :, 0].norm(dim=-1).floor().clamp(1, min(images.shape[-2:])).int()
    pixel = torch.arange(size, device=images.device, dtype=torch.float64)
    y, x = torch.meshgrid(pixel, pixel, indexing="ij")
    crop_points = torch.stack([x, y, torch.ones_like(x)], -1).flatten(0, 1)
    image_points = (crop_points @ to_image.mT).view(-1, size, size, 2)

    crops = [
        _sample(image[None], where[None], int(b)) for image, where, b in zip(images, image_points, block, strict=True)
    ]
    return torch.cat(crops)


def align_face(
    image: np.ndarray,
    landmarks: np.ndarray,
    template: np.ndarray = ARCFACE_TEMPLATE,
    size: int = 112,
    mirrored: int = 0,
    border: tuple[int, int, int] = (0, 0, 0),
) -> np.ndarray:
    """Crop one aligned face from a photo: `warp_faces`, rounded to 8 bits.

    Args:
        image: (height, width, 3), uint8.
        landmarks: (5, 2), pixels.
        template: (5, 2), positions of the landmarks in the crop.
        size: Side of the square crop in pixels.
        mirrored: Width of a mirrored border around the photo in pixels, less than its shorter side; `border` beyond.
        border: Colour outside of the photo.

    Returns:
        (size, size, 3), uint8.
    """
    points = torch.from_numpy(np.asarray(landmarks, np.float64)) + mirrored
    if mirrored or image.shape[0] * image.shape[1] > _LARGE:
        image, points = _part_around(image, points, template, size, mirrored)
    outside = torch.tensor(border, dtype=torch.float32)[:, None, None]
    pixels = torch.tensor(np.ascontiguousarray(image)).permute(2, 0, 1)[None].float() - outside
    crop = warp_faces(pixels, points[None], template, size) + outside
    return crop[0].permute(1, 2, 0).round().clamp(0, 255).to(torch.uint8).contiguous().numpy()


def _part_around(
    image: np.ndarray, points: torch.Tensor, template: np.ndarray, size: int, mirrored: int
) -> tuple[np.ndarray, torch.Tensor]:
    """The part of a photo and its mirrored border that a crop needs, in whole blocks, and the points within it."""
    to_image = _invert(similarity_transform(points, torch.as_tensor(template)))
    height, width = (length + 2 * mirrored for length in image.shape[:2])
    block = int(to_image[:, 0].norm().floor().clamp(1, min(height, width)))
    corners = torch.tensor([[x, y, 1.0] for x in (0, size - 1) for y in (0, size - 1)], dtype=torch.float64)
    blocks = corners @ to_image.mT / block
    last = torch.tensor([width, height]) // block - 1
    low = torch.minimum((blocks.amin(0).floor().long() - 2).clamp(min=0), last) * block
    high = torch.maximum((blocks.amax(0).ceil().long() + 2) * block, low + block)
    (x0, y0), (x1, y1) = low.tolist(), high.tolist()
    if not mirrored:
        return image[y0:y1, x0:x1], points - low
    rows, columns = (
        _reflected(np.arange(start, min(end, whole)) - mirrored, whole - 2 * mirrored)
        for start, end, whole in ((y0, y1, height), (x0, x1, width))
    )
    return image[np.ix_(rows, columns)], points - low


def _reflected(index: np.ndarray, length: int) -> np.ndarray:
    """Source index of each pixel of a mirrored border, as in `np.pad(mode="reflect")`."""
    index = np.abs(index)
    return np.where(index < length, index, 2 * (length - 1) - index)


def _invert(matrix: torch.Tensor) -> torch.Tensor:
    linear = torch.linalg.inv(matrix[..., :2])
    return torch.cat([linear, -linear @ matrix[..., 2:]], -1)


def _sample(image: torch.Tensor, points: torch.Tensor, block: int) -> torch.Tensor:
    """Sample an image at (1, h, w, 2) pixel positions, after averaging it over `block` × `block` pixels."""
    if block > 1:
        image = F.avg_pool2d(image, block)
    size = torch.tensor([image.shape[-1], image.shape[-2]], device=points.device)
    grid = 2 * (points + 0.5) / (block * size) - 1
    dtype = image.dtype if image.dtype == torch.float64 else torch.float32
    return F.grid_sample(image.to(dtype), grid.to(dtype), mode="bilinear", align_corners=False).to(image.dtype)
