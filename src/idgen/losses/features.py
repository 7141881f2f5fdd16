"""Feature reconstruction: the generated face and its target in the inner layers of a face encoder."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from ..errors import LossError
from .parametrisation import at_least_float32


def feature_loss(generated_features: Sequence[torch.Tensor], target_features: Sequence[torch.Tensor]) -> torch.Tensor:
    """Mean over the layers of `mean |F(x0) − F(target)| / mean |F(target)|`.

    After the identity preserving reconstruction loss for learned image compression (Xiao et al., arXiv 2204.10869),
    which compares features of a frozen recogniser. Here each layer's error is relative to the size of its features, so
    that layers and encoders need no weights of their own.

    Args:
        generated_features: (batch, channels, height, width) of each layer, with their graph.
        target_features: The same of the target; constants.

    Returns:
        (batch,).

    Raises:
        LossError: The layers differ, or there are none.
    """
    if not target_features or [x.shape for x in generated_features] != [x.shape for x in target_features]:
        raise LossError("Features of the generated face and of its target must be of the same layers, at least one.")
    errors = []
    for found, wanted in zip(generated_features, target_features, strict=True):
        found, wanted = at_least_float32(found).flatten(1), at_least_float32(wanted).flatten(1).detach()
        size = wanted.abs().mean(1).clamp(min=torch.finfo(wanted.dtype).eps)
        errors.append((found - wanted).abs().mean(1) / size)
    return torch.stack(errors).mean(0)
