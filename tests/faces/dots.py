"""A small encoder with a gradient, as a row that a test adds to the table."""

from __future__ import annotations

import torch
from torch import nn

from idgen.faces import AlignedEncoder, EncoderRow
from idgen.faces.align import ARCFACE_TEMPLATE


class Network(nn.Sequential):
    """With the output of its layer for losses on features."""

    def inner_features(self, images: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        return [self[0](images)], self(images)


class Dots(AlignedEncoder):
    """Colours at 4 × 4 places of the crop, against grey."""

    name, dim, template, size = "dots", 48, ARCFACE_TEMPLATE, 112

    def torch_module(self, checkpointing: bool = False) -> nn.Module:
        layer = nn.Conv2d(3, 3, 28, stride=28, groups=3).requires_grad_(False)
        nn.init.constant_(layer.weight, 1 / 28**2)
        assert layer.bias is not None
        nn.init.constant_(layer.bias, -0.4)
        return Network(layer, nn.Flatten())


ROW = EncoderRow(open=lambda _: Dots(), dim=Dots.dim, licence="CC0", help="mean colours")
