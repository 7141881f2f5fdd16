"""`PartsEncoder`: features of the face, the eyes, the nose and the mouth, a row for each."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import EncoderMismatchError
from .encoder import AlignedEncoder, FaceEncoder, aligned, inner_features
from .part_names import PARTS
from .parts import part_masks

PREFIX = "parts/"
"""Of the names of encoders with `part_masks`, before the name of the encoder of the whole face."""

FindParts: TypeAlias = Callable[[torch.Tensor], torch.Tensor]
"""Aligned faces, (batch, 3, height, width), RGB in [0, 1] → masks in [0, 1], (batch, parts, any height, any width)."""


class PartsEncoder(AlignedEncoder):
    """Means of a face encoder's inner feature maps under masks of parts, for the projection `rows` (ConsistentID).

    A row has the means of all maps, the first map first. A part that is outside of the crop has a row of zeros.

    Attributes:
        rows: Number of parts.

    Args:
        encoder: An encoder whose network has `inner_features`.
        find_parts: Finds the parts, such as a face parser. By default they are `PARTS`, and the masks those of
            `part_masks` around the five landmarks that crops are aligned to.
        name: Name of the encoder, which `find_parts` requires: other masks make other features.

    Raises:
        EncoderMismatchError: The encoder has no network with a gradient, or the network no feature maps; or
            `find_parts` was given without a name.
    """

    def __init__(self, encoder: FaceEncoder, find_parts: FindParts | None = None, name: str | None = None) -> None:
        if find_parts is not None and name is None:
            raise EncoderMismatchError("A PartsEncoder with find_parts needs a name: other masks make other features.")
        self._of = aligned(encoder)
        self.name = name or f"{PREFIX}{encoder.name}"
        self.template, self.size = self._of.template, self._of.size
        self._find_parts = find_parts or self._around_template
        self._network = self._pooling()
        with torch.no_grad():
            _, self.rows, channels = self._network.rows(torch.zeros(1, 3, self.size, self.size)).shape
        self.dim = self.rows * channels

    def torch_module(self, checkpointing: bool = False) -> nn.Module:
        """See `AlignedEncoder`; there is no gradient through the masks."""
        return self._pooling(checkpointing) if checkpointing else self._network

    def _pooling(self, checkpointing: bool = False) -> PartPooling:
        return PartPooling(self._of.torch_module(checkpointing), self._find_parts).eval()

    def _around_template(self, images: torch.Tensor) -> torch.Tensor:
        points = torch.as_tensor(self.template, dtype=torch.float32, device=images.device)[None]
        return part_masks(points, self.size, self.size, PARTS).expand(len(images), -1, -1, -1)


class PartPooling(nn.Module):
    """A network whose output is the means of another one's inner feature maps under masks.

    Args:
        network: A network with `inner_features`.
        find_parts: Finds the parts.
    """

    def __init__(self, network: nn.Module, find_parts: FindParts) -> None:
        super().__init__()
        self.network, self.find_parts = network, find_parts

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, 3, height, width), RGB in [0, 1] → (batch, parts · channels), part after part."""
        return self.rows(images).flatten(1)

    def rows(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, 3, height, width), RGB in [0, 1] → (batch, parts, channels of all maps)."""
        with torch.no_grad():
            masks = self.find_parts(images).to(images)
        return torch.cat([pool_parts(features, masks) for features in inner_features(self.network, images)[0]], -1)


def pool_parts(features: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
    """The mean of a feature map under each mask.

    Both cover the crop: a position of the map counts by the share of it that is inside of the mask.

    Args:
        features: (batch, channels, height, width).
        masks: (batch, parts, any height, any width), in [0, 1].

    Returns:
        (batch, parts, channels); zeros for an empty mask.
    """
    weights = F.adaptive_avg_pool2d(masks, (features.shape[2], features.shape[3]))
    totals = weights.sum((2, 3))[..., None]
    return torch.einsum("bphw,bchw->bpc", weights, features) / totals.where(totals > 0, 1)
