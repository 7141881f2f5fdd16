"""Principal components of patches as an encoder that needs no training.

A patch of 8 x 8 pixels is projected on its most important directions. 32 of them keep 38 dB, and since the encoder is
final, the decoder and the base can be trained at the same time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from diffusers.models.autoencoders.vae import EncoderTiny
from torch import nn

PATCH = 8
SAMPLES = 1000


def principal_components(
    crops: dict[str, np.ndarray], count: int, seed: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Of the patches of photos and of styled pictures in [0, 1], as many of the one as of the other.

    Returns:
        basis: (patch², 3, count), orthonormal; positions row by row.
        mean: (patch², 3).
        deviation: (count,), of each component; the first is the largest.
    """
    random = np.random.default_rng(seed)
    pictures = [
        crops[kind][np.sort(random.choice(len(crops[kind]), min(len(crops[kind]), SAMPLES), replace=False))]
        for kind in ("images", "styled")
    ]
    patches = torch.cat([_patches(torch.from_numpy(images)) for images in pictures])
    mean = patches.mean(0)
    values, vectors = torch.linalg.eigh(torch.cov((patches - mean).T))
    shape = (PATCH * PATCH, 3)
    basis = vectors.flip(1)[:, :count].unflatten(0, shape).float()
    return basis, mean.view(shape).float(), values.flip(0)[:count].sqrt().float()


def set_encoder(encoder: EncoderTiny, basis: torch.Tensor, mean: torch.Tensor) -> None:
    """Make `encoder` a linear map: patches of 8 x 8 pixels in [0, 1] minus `mean`, onto `basis`.

    It needs no blocks, and as many channels as latents, at least 48: a picture is folded twice by convolutions of
    stride 2 that only copy, to 4 x 4 x 3 values a position; the third one sums what four positions give.

    Args:
        encoder: Of an `AutoencoderTiny` of four levels.
        basis: (64, 3, latents).
        mean: (64, 3).
    """
    layers: list[Any] = [layer for layer in encoder.layers if isinstance(layer, nn.Conv2d)]
    first, *folds, last = layers
    if len(folds) != 3 or len(list(encoder.layers)) != 5 or first.out_channels < max(48, basis.shape[2]):
        raise ValueError("Principal components need encoder_blocks = [0, 0, 0, 0] and an encoder 48 channels wide.")
    for layer in (first, *folds, last):
        layer.weight.data.zero_()
    first.bias.data.zero_()
    for colour in range(3):
        first.weight.data[colour, colour, 1, 1] = 1
    for fold, before in zip(folds[:2], (3, 12), strict=True):
        for y in range(2):
            for x in range(2):
                for channel in range(before):
                    fold.weight.data[(2 * y + x) * before + channel, channel, 1 + y, 1 + x] = 1
    # A channel of the second fold is one colour at (2 · inner + outer) pixels of its 4 x 4.
    pixels = basis.view(PATCH, PATCH, 3, -1)
    for y in range(PATCH):
        for x in range(PATCH):
            inner, outer = 2 * (y // 2 % 2) + x // 2 % 2, 2 * (y % 2) + x % 2
            channels = slice(inner * 12 + outer * 3, inner * 12 + outer * 3 + 3)
            folds[2].weight.data[: basis.shape[2], channels, 1 + y // 4, 1 + x // 4] = pixels[y, x].T
    for i in range(basis.shape[2]):
        last.weight.data[i, i, 1, 1] = 1
    last.bias.data.copy_(-(mean.flatten() @ basis.flatten(0, 1)))


@torch.no_grad()
def as_one_layer(encoder: EncoderTiny) -> nn.Conv2d:
    """A linear encoder of patches as one convolution, which computes the same fifty times as fast."""
    pixels = PATCH * PATCH * 3
    single = torch.eye(pixels, device=next(encoder.parameters()).device).view(pixels, 3, PATCH, PATCH)
    nothing = encoder(torch.zeros_like(single[:1]))
    layer: Any = nn.Conv2d(3, nothing.shape[1], PATCH, stride=PATCH, device=single.device)
    layer.weight.copy_((encoder(single) - nothing).view(pixels, -1).T.reshape(layer.weight.shape))
    layer.bias.copy_(nothing.flatten())
    return layer


def _patches(images: torch.Tensor) -> torch.Tensor:
    """(n, side, side, 3) uint8 → (n · patches, 192) in [0, 1]."""
    grid = images.unflatten(1, (-1, PATCH)).unflatten(3, (-1, PATCH))
    return grid.permute(0, 1, 3, 2, 4, 5).flatten(3).flatten(0, 2).double() / 255
