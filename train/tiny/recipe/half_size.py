"""The latents of a model of half the resolution, so that its UNet draws pictures of twice the side.

The decoder learns to decode them at the full size. The encoder is the model's own behind a convolution that halves the
picture, and needs no training.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from diffusers.models.autoencoders.vae import EncoderTiny
from torch import nn

from idgen.errors import TrainingError

_FILTERS = torch.tensor([[0.5, 0.5, 0.0], [0.0, 0.5, 0.5], [0.0, 0.0, 1.0]])
"""Of a line of pixels, at three places beside each other: the means of the pairs left of the middle and right of it,
and, for the next pair, its first pixel; its second one is out of reach."""


def open_start(folder: Path) -> Any:
    """The autoencoder of the model that is continued, in float32."""
    return AutoencoderTiny.from_pretrained(folder / "vae", torch_dtype=torch.float32).requires_grad_(False)


class HalfSize(nn.Module):
    """The latents of pictures at half their side, by the autoencoder of the model that is continued."""

    def __init__(self, start: Path) -> None:
        super().__init__()
        self.encoder = open_start(start).encoder

    def forward(self, pictures: torch.Tensor) -> torch.Tensor:
        """(batch, 3, side, side) in [-1, 1] → (batch, channels, side / 8, side / 8), unscaled."""
        return self.encoder(F.avg_pool2d(pictures, 2))


@torch.no_grad()
def start_encoder(encoder: EncoderTiny, start: Path) -> None:
    """Make `encoder` compute what `HalfSize` does, but for one line of pixels in six.

    Args:
        encoder: Of an `AutoencoderTiny`. It has one level without blocks more than that of `start`, and its width.
        start: Folder of the model.

    Raises:
        TrainingError: The shapes differ.
    """
    layers: list[Any] = list(encoder.layers)
    theirs: list[Any] = list(open_start(start).encoder.layers)
    shapes = [[tuple(weight.shape) for weight in layer.parameters()] for layer in (*layers[2:], *theirs[1:])]
    if shapes[: len(layers) - 2] != shapes[len(layers) - 2 :]:
        raise TrainingError(f"The encoder must be that of '{start}' after a level without blocks, of the same width.")
    halve, first, (pixels, *rest) = layers[0], layers[1], theirs
    for layer, weights in zip(layers[2:], rest, strict=True):
        layer.load_state_dict(weights.state_dict())
    for layer in (halve, first):
        layer.weight.zero_()
    halve.bias.zero_()
    one = 27  # a channel that is always 1 carries the bias, which convolutions of stride 2 lack
    halve.bias[one] = 1
    first.weight[:, one, 1, 1] = pixels.bias
    for y in range(3):
        for x in range(3):
            for colour in range(3):
                channel = 9 * y + 3 * x + colour
                halve.weight[channel, colour] = torch.outer(_FILTERS[y], _FILTERS[x])
                first.weight[:, channel, y, x] = pixels.weight[:, colour, y, x]
