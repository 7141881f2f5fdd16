"""Blends a crop of an aligned face back into its photo, and the oval that a face covers."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from .align import similarity_transform

OVAL = (0.95, 1.18)
"""Half of the width and of the height of a face, from brows to chin and between the cheeks, in distances from the
eyes to the mouth."""

AWAY = 0.5
"""Distance of the oval's centre from the landmarks' one, away from the nose, in distances of the nose from there."""

FEATHER = 0.3
"""Share of the oval's radius over which it fades out."""


class Pasted(NamedTuple):
    """A photo with a face pasted into it.

    Attributes:
        photo: (height, width, 3) uint8.
        mask: (height, width) uint8, how much of each pixel is the pasted one, rounded up: where it is 0, the pixel is
            the photo's own.
    """

    photo: np.ndarray
    mask: np.ndarray


def face_oval(landmarks: np.ndarray, height: int, width: int) -> np.ndarray:
    """The oval that a face covers, from its landmarks: (height, width) float32, 1 inside, fading to 0 at its edge.

    It is 0 at the border of the image too, so that a face at the border has no visible edge.

    Args:
        landmarks: (5, 2), pixels.
        height: Height of the image.
        width: Width of the image.
    """
    eyes, mouth = landmarks[:2].mean(0), landmarks[3:].mean(0)
    centre, across = (eyes + mouth) / 2, landmarks[1] - landmarks[0]
    turn = np.arctan2(across[1], across[0])
    axes = np.array([[np.cos(turn), np.sin(turn)], [-np.sin(turn), np.cos(turn)]])  # of the face: right and down
    # a face that looks to the side has narrow eyes, one that looks up or down a short distance to the mouth
    tall, wide = float(np.linalg.norm(mouth - eyes)), 1.15 * float(np.linalg.norm(across))
    reach = max(tall, wide, 1e-6)
    y, x = np.mgrid[:height, :width].astype(np.float64)
    right, down = np.einsum("ij,jhw->ihw", axes, np.stack([x - centre[0], y - centre[1]]))
    aside = AWAY * float((axes @ (landmarks[2] - centre))[0])  # of a face to the side, more lies behind the nose
    radius = np.hypot((right + aside) / (OVAL[0] * (wide + reach) / 2), down / (OVAL[1] * reach))
    rows, columns = (np.minimum(np.arange(n), np.arange(n)[::-1]) / max(0.04 * n, 1) for n in (height, width))
    inside = np.minimum((1 - radius) / FEATHER, np.minimum(rows[:, None], columns[None])).clip(0, 1)
    return (inside * inside * (3 - 2 * inside)).astype(np.float32)


def paste_face(
    photo: np.ndarray, crop: np.ndarray, opacity: np.ndarray, landmarks: np.ndarray, template: np.ndarray
) -> Pasted:
    """Blend a crop that `align_face` could have cut back into the photo. Pixels of opacity 0 do not change.

    Args:
        photo: (height, width, 3) uint8.
        crop: (side, side, 3) uint8.
        opacity: (side, side) in [0, 1], of each pixel of the crop.
        landmarks: (5, 2), in pixels of the photo.
        template: (5, 2), where they lie in the crop.
    """
    height, width = photo.shape[:2]
    points = torch.from_numpy(np.asarray(landmarks, np.float64))
    to_crop = similarity_transform(points, torch.from_numpy(np.asarray(template, np.float64)))
    side = crop.shape[0]
    corners = torch.tensor([[0, 0], [side, 0], [0, side], [side, side]], dtype=torch.float64) - 0.5
    to_photo = torch.linalg.inv(to_crop[:, :2])
    seen = (corners - to_crop[:, 2]) @ to_photo.mT
    low = seen.amin(0).floor().long().clamp(min=0).tolist()
    high = (seen.amax(0).ceil().long() + 1).clamp(max=torch.tensor([width, height])).tolist()
    mask = np.zeros((height, width), np.uint8)
    if high[0] <= low[0] or high[1] <= low[1]:
        return Pasted(photo.copy(), mask)
    (x0, y0), (x1, y1) = low, high
    y, x = torch.meshgrid(torch.arange(y0, y1), torch.arange(x0, x1), indexing="ij")
    places = torch.stack([x, y], -1).double() @ to_crop[:, :2].mT + to_crop[:, 2]
    layers = torch.from_numpy(np.dstack([crop.astype(np.float32), opacity.astype(np.float32)])).permute(2, 0, 1)
    sampled = _sampled(layers[None], places[None], float(to_crop[:, 0].norm()))[0].permute(1, 2, 0).numpy()
    share, part = sampled[..., 3:].clip(0, 1), photo[y0:y1, x0:x1]
    blended = part + share * (sampled[..., :3].clip(0, 255) - part)
    result = photo.copy()
    result[y0:y1, x0:x1] = np.where(share > 0, blended.round().clip(0, 255), part).astype(np.uint8)
    mask[y0:y1, x0:x1] = np.ceil(share[..., 0] * 255)
    return Pasted(result, mask)


def _sampled(image: torch.Tensor, places: torch.Tensor, zoom: float) -> torch.Tensor:
    """Sample an image at (1, height, width, 2) pixel positions that lie `zoom` pixels of the image apart.

    An image that is larger than its place is first resized, which averages over its pixels: no aliasing. One that is
    smaller is interpolated by cubics, without the blocks of a bilinear one.
    """
    side = image.shape[-1]
    if zoom > 1:
        size = max(1, round(side / zoom))
        image = F.interpolate(image, (size, size), mode="bilinear", antialias=True, align_corners=False)
    grid = (2 * (places + 0.5) / side - 1).float()
    return F.grid_sample(
        image, grid, mode="bilinear" if zoom > 1 else "bicubic", padding_mode="zeros", align_corners=False
    )


def match_colours(image: np.ndarray, like: np.ndarray, opacity: np.ndarray) -> np.ndarray:
    """Give an image the mean and the contrast of each colour of another one, within a mask.

    Args:
        image: (height, width, 3) uint8.
        like: (height, width, 3) uint8.
        opacity: (height, width), weights of the pixels that are compared; an image of weight 0 is not changed.

    Returns:
        (height, width, 3) uint8. The contrast changes by a factor of 0.7 to 1.4 at most.
    """
    total = float(opacity.sum())
    if total == 0:
        return image
    weights = opacity[..., None] / total

    def moments(pixels: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        mean = (weights * pixels).sum((0, 1))
        return mean, np.sqrt((weights * (pixels - mean) ** 2).sum((0, 1)))

    (mean, spread), (mean_of_other, spread_of_other) = moments(image), moments(like)
    factor = (spread_of_other / np.maximum(spread, 1e-6)).clip(0.7, 1.4)
    return ((image - mean) * factor + mean_of_other).round().clip(0, 255).astype(np.uint8)
