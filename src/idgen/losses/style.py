"""Losses that fit a LoRA and an identity adapter to styles, each given by a few pictures.

After "Few-shot Hybrid Domain Adaptation of Image Generators" (arXiv 2310.19378): the pictures of each style span a
subspace of a feature space; a distance loss moves generated pictures towards all subspaces, and a direction loss moves
them there perpendicularly, so that what the source has beside the style is kept. The authors' features are those of
CLIP and similar encoders. Here they are statistics of the latents (after Gatys et al., arXiv 1508.06576), which need
no network and no decoding.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ..errors import LossError
from .parametrisation import at_least_float32

SHARE = 0.9
"""Directions of a style's subspace explain this share of the variance between its pictures."""


class StyleSpace(NamedTuple):
    """The affine subspace of the pictures of one style.

    Attributes:
        mean: (dim,).
        directions: (rank, dim), orthonormal.
    """

    mean: torch.Tensor
    directions: torch.Tensor

    def offset(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, dim) → the perpendicular vectors from the subspace to the features, (batch, dim)."""
        offset, directions = features - self.mean.to(features), self.directions.to(features)
        return offset - offset @ directions.T @ directions


class Styles(NamedTuple):
    """The subspaces of all styles, in features that are divided by `scale`, (dim,)."""

    spaces: list[StyleSpace]
    scale: torch.Tensor

    def offset(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents → the mean of the perpendicular vectors from the subspaces to their features, (batch, dim)."""
        features = style_features(latents) / self.scale.to(latents)
        return torch.stack([space.offset(features) for space in self.spaces]).mean(0)

    def distances(self, latents: torch.Tensor) -> torch.Tensor:
        """Latents → mean squared distance to each subspace, (styles, batch)."""
        features = style_features(latents) / self.scale.to(latents)
        return torch.stack([space.offset(features).square().mean(1) for space in self.spaces])


def style_features(latents: torch.Tensor) -> torch.Tensor:
    """Statistics that do not depend on where things are.

    Args:
        latents: (batch, channels, height, width), at least 4 × 4.

    Returns:
        (batch, dim): means and covariances of the channels, and their contrast at three scales.
    """
    latents = at_least_float32(latents)
    channels, flat = latents.shape[1], latents.flatten(2)
    centred = flat - flat.mean(2, keepdim=True)
    rows, columns = torch.triu_indices(channels, channels)
    covariances = (centred @ centred.mT / flat.shape[2])[:, rows, columns]
    contrasts, x = [], latents
    for _ in range(3):
        coarse = F.avg_pool2d(x, 2, ceil_mode=True)
        fine = x - F.interpolate(coarse, x.shape[-2:], mode="nearest")
        contrasts.append((fine.square().mean((2, 3)) + 1e-8).sqrt())
        x = coarse
    return torch.cat([flat.mean(2), covariances, *contrasts], 1)


def style_preservation_loss(x0: torch.Tensor, x0_without_id: torch.Tensor) -> torch.Tensor:
    """Mean squared difference of the `style_features` of two pictures, which need not show the same things.

    Args:
        x0: (batch, channels, height, width), with the identity.
        x0_without_id: The same without it; a constant.

    Returns:
        (batch,).
    """
    return (style_features(x0) - style_features(x0_without_id.detach())).square().mean(1)


def fit_styles(latents: Sequence[torch.Tensor]) -> Styles:
    """The subspaces of styles.

    Args:
        latents: (pictures, channels, height, width) of each style, two or more pictures each.

    Raises:
        LossError: There is no style, or a style has fewer than two pictures.
    """
    if not latents or min(map(len, latents)) < 2:
        raise LossError(f"A style needs at least 2 pictures, got {[len(each) for each in latents]}.")
    features = [style_features(each) for each in latents]
    scale = torch.cat([each - each.mean(0) for each in features]).square().mean(0).sqrt()
    scale = scale.clamp(min=max(0.1 * float(scale.mean()), 1e-6))
    return Styles([_space(each / scale) for each in features], scale)


class StyleDistanceLoss:
    """`mean over the styles of ‖z − P z‖² / dim`, where P projects onto the subspace of a style.

    Args:
        styles: Returns the subspaces; called once.

    Raises:
        LossError: No style is given.
    """

    def __init__(self, styles: Callable[[], Styles] | None = None) -> None:
        self.styles = _styles(styles)

    def __call__(self, predicted_latents: torch.Tensor) -> torch.Tensor:
        """(batch, channels, height, width), x0 as predicted → (batch,)."""
        return self.styles.distances(predicted_latents).mean(0)


class StyleDirectionLoss:
    """`1 − cos(z − z₀, −(z₀ − P z₀))`: from the base model's picture straight to the styles.

    z₀ are the features of the picture that the base model predicts from the same noise, and P z₀ is the mean over the
    styles. What lies along a subspace, and so differs between pictures of one style, stays as the base model has it.

    Args:
        styles: See `StyleDistanceLoss`.

    Raises:
        LossError: No style is given.
    """

    def __init__(self, styles: Callable[[], Styles] | None = None) -> None:
        self.styles = _styles(styles)

    def __call__(self, predicted_latents: torch.Tensor, latents_without_id: torch.Tensor) -> torch.Tensor:
        """x0 as predicted, and as the base model predicts it, (batch, channels, height, width) each → (batch,)."""
        source, scale = latents_without_id.detach(), self.styles.scale.to(predicted_latents)
        moved = (style_features(predicted_latents) - style_features(source)) / scale
        return 1 - F.cosine_similarity(moved, -self.styles.offset(source), dim=1)


def _styles(styles: Callable[[], Styles] | None) -> Styles:
    if styles is None:
        raise LossError("A loss reads styles: give folders of pictures, --losses.styles FOLDER ….")
    return styles()


def _space(features: torch.Tensor) -> StyleSpace:
    mean = features.mean(0)
    _, sizes, directions = torch.linalg.svd(features - mean, full_matrices=False)
    shares = sizes.square().cumsum(0) / sizes.square().sum().clamp(min=torch.finfo(sizes.dtype).tiny)
    rank = min(int((shares < SHARE).sum()) + 1, len(features) - 1)
    return StyleSpace(mean, directions[:rank])
