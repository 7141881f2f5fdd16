"""Small changes to a photo that keep face encoders from recognising the person."""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from tqdm import tqdm

from ..errors import ProvenanceError
from ..losses import FaceEmbedder
from .protection_settings import ProtectionSettings

REGION = 2.2
"""Half the side of the square that is changed, in largest distances between two landmarks along an axis."""
GRID = 256
"""Side of the grid on which the change is optimised; it is interpolated to the pixels of the photo."""
MOMENTUM = 0.9
JPEG_QUALITY = (60, 95)
SHRINK = 0.5


def protect(
    photo: np.ndarray,
    landmarks: np.ndarray,
    embedders: Sequence[FaceEmbedder],
    settings: ProtectionSettings | None = None,
    mask: np.ndarray | None = None,
    progress: bool = False,
    on_step: Callable[[int, int], None] = lambda done, total: None,
) -> np.ndarray:
    """Change a photo so that face encoders no longer recognise the person.

    Projected gradient descent with momentum (MI-FGSM, arXiv 1710.06081) lowers the mean cosine to the embeddings of
    the photo itself. Each step sees the photo as it is and after a random edit (JPEG, resizing, blur), so that the
    change survives such edits (expectation over transformation, arXiv 1707.07397).

    Args:
        photo: (height, width, 3), uint8 RGB.
        landmarks: (5, 2), of the face that is protected, pixels.
        embedders: Differentiable face encoders that it is protected against.
        settings: Strength, steps and seed.
        mask: (height, width), from 0 to 1, where the photo may change. A soft ellipse around the face if not given.
        progress: Show a progress bar.
        on_step: Called after each step with the number of finished steps and of all steps.

    Returns:
        (height, width, 3), uint8. No value differs from the photo by more than the strength; strength 0 returns the
        photo itself.

    Raises:
        ProvenanceError: No encoder is given, or the mask has another size than the photo or values beyond 0 to 1.
    """
    settings = settings or ProtectionSettings()
    if not embedders:
        raise ProvenanceError("protect needs at least one face encoder.")
    if mask is not None and mask.shape != photo.shape[:2]:
        raise ProvenanceError(f"The mask has the shape {mask.shape}, the photo {photo.shape[:2]}.")
    if mask is not None and not ((mask >= 0) & (mask <= 1)).all():
        raise ProvenanceError(f"The mask must have values from 0 to 1, got {mask.min():g} to {mask.max():g}.")
    if settings.strength == 0:
        return photo.copy()
    top, bottom, left, right = face_region(landmarks, photo.shape[:2])
    part = torch.tensor(photo[top:bottom, left:right]).permute(2, 0, 1)[None].float() / 255
    points = torch.from_numpy(landmarks - np.array([left, top]))[None]
    weights = _ellipse(points[0], part.shape[-2:]) if mask is None else torch.tensor(mask[top:bottom, left:right])
    change = _optimise(part, points, weights.float(), embedders, settings, progress, on_step)
    changed = (255 * part + change).round().clamp(0, 255)[0].permute(1, 2, 0).to(torch.uint8).numpy()
    protected = photo.copy()
    protected[top:bottom, left:right] = changed
    return protected


def _optimise(
    part: torch.Tensor,
    points: torch.Tensor,
    weights: torch.Tensor,
    embedders: Sequence[FaceEmbedder],
    settings: ProtectionSettings,
    progress: bool,
    on_step: Callable[[int, int], None],
) -> torch.Tensor:
    """The change in 255ths, (1, 3, height, width)."""
    random = torch.Generator().manual_seed(settings.seed)
    with torch.no_grad():
        own = [F.normalize(embedder(part, points), dim=-1) for embedder in embedders]
    grid = [min(side, GRID) for side in part.shape[-2:]]
    limit = settings.strength / 255
    delta = (2 * torch.rand(1, 3, *grid, generator=random) - 1) * limit
    velocity = torch.zeros_like(delta)
    rate = 2.5 * limit / settings.steps

    def shown(delta: torch.Tensor) -> torch.Tensor:
        return F.interpolate(delta, part.shape[-2:], mode="bilinear", align_corners=False) * weights

    for step in tqdm(range(settings.steps), "Protecting", disable=not progress):
        delta.requires_grad_()
        changed = (part + shown(delta)).clamp(0, 1)
        views = torch.cat([changed, _edited(changed, random)])
        similarity = torch.stack(
            [
                (F.normalize(embedder(views, points.expand(2, -1, -1)), dim=-1) * target).sum(-1).mean()
                for embedder, target in zip(embedders, own, strict=True)
            ]
        )
        (gradient,) = torch.autograd.grad(similarity.mean(), delta)
        with torch.no_grad():
            velocity = MOMENTUM * velocity + gradient / gradient.abs().mean().clamp(min=1e-12)
            delta = (delta - rate * velocity.sign()).clamp(-limit, limit)
        on_step(step + 1, settings.steps)
    return (255 * shown(delta)).detach().clamp(-settings.strength, settings.strength)


def _edited(image: torch.Tensor, random: torch.Generator) -> torch.Tensor:
    """One random edit: JPEG, a smaller size and back, or blur."""
    kind = int(torch.randint(3, (), generator=random))
    if kind == 0:
        return _as_jpeg(image, int(torch.randint(*JPEG_QUALITY, (), generator=random)))
    if kind == 1:
        share = SHRINK + (1 - SHRINK) * float(torch.rand((), generator=random))
        small = F.interpolate(image, scale_factor=share, mode="bilinear", antialias=True)
        return F.interpolate(small, image.shape[-2:], mode="bilinear", antialias=True)
    return F.avg_pool2d(F.pad(image, (1, 1, 1, 1), mode="replicate"), 3, 1)


def _as_jpeg(image: torch.Tensor, quality: int) -> torch.Tensor:
    """A real JPEG file of the image; the gradient passes through as if nothing had happened."""
    pixels = (255 * image.detach()[0]).round().byte().permute(1, 2, 0).numpy()
    decoded = torch.tensor(jpeg(pixels, quality)).permute(2, 0, 1)[None].float() / 255
    return image + (decoded - image).detach()


def jpeg(photo: np.ndarray, quality: int) -> np.ndarray:
    """(height, width, 3) uint8 as a JPEG file of this quality shows it."""
    file = io.BytesIO()
    Image.fromarray(photo).save(file, "JPEG", quality=quality)
    return np.asarray(Image.open(file))


def face_region(landmarks: np.ndarray, size: tuple[int, ...]) -> tuple[int, int, int, int]:
    """The square around a face, cut at the edges of the photo: top, bottom, left, right."""
    middle = landmarks.mean(0)
    reach = REGION * (landmarks.max(0) - landmarks.min(0)).max()
    (left, top), (right, bottom) = (np.round(middle + sign * reach).astype(int) for sign in (-1, 1))
    return max(top, 0), min(bottom, size[0]), max(left, 0), min(right, size[1])


def _ellipse(points: torch.Tensor, size: torch.Size) -> torch.Tensor:
    """(height, width): 1 on the face, falling to 0 towards hair and neck."""
    middle, reach = points.mean(0), (points.amax(0) - points.amin(0)).amax()
    y, x = torch.meshgrid(*(torch.arange(side) for side in size), indexing="ij")
    distance = ((x - middle[0]) / (1.5 * reach)).square() + ((y - middle[1]) / (1.9 * reach)).square()
    return (3 * (1 - distance)).clamp(0, 1)
