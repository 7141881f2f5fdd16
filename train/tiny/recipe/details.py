"""More latent channels: what a picture of twice the side shows and the latents of the smaller model do not.

The widened networks compute at first what the given ones compute, so training continues from a model that draws.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from diffusers import AutoencoderTiny
from torch import nn

DEVIATION = 0.5
"""Standard deviation of the new channels at the start, in units of the noise. Details that are weaker than coarse
structure are drawn later, when the structure that they depend on is clear."""


@torch.no_grad()
def widen_autoencoder(given: Any, pictures: torch.Tensor, extra: int) -> Any:
    """The same autoencoder with `extra` more latent channels, which its decoder does not read yet.

    The new channels are principal components of what the decoder misses, minus their prediction from the given
    features.

    Args:
        given: An `AutoencoderTiny` of four levels whose first two have no blocks in the encoder.
        pictures: (n, 3, side, side) in [0, 1].
        extra: Number of channels, 8 at most.
    """
    net, old = wide_autoencoder(given, extra), given.config["latent_channels"]
    width = given.config["encoder_block_out_channels"][0]
    _copy_decoder(given.decoder, net.decoder, old)
    layers, theirs = list(net.encoder.layers), list(given.encoder.layers)
    for layer, other in zip(layers[:-1], theirs[:-1], strict=True):
        _copy_half(layer, other, width)
    _space_to_depth(layers[0], layers[1], layers[2], width)
    features = torch.cat([given.encoder.layers[:-1](part) for part in pictures.split(64)])
    latents = theirs[-1](features)
    made = torch.cat([given.decoder(part) for part in latents.split(64)]).clamp(-1, 1) / 2 + 0.5
    directions = _principal(_patches(pictures - made), extra)
    _components(layers[4], directions, width)
    _predict_components(layers[-1], theirs[-1], features, _patches(pictures) @ directions, width)
    scale = DEVIATION / net.config["scaling_factor"]
    found = torch.cat([net.encoder(part * 2 - 1) for part in pictures.split(64)])[:, old:]
    factor = scale / found.std((0, 2, 3))
    layers[-1].bias[old:] = (layers[-1].bias[old:] - found.mean((0, 2, 3))) * factor
    layers[-1].weight[old:] *= factor[:, None, None, None]
    return net


def wide_autoencoder(given: Any, extra: int) -> Any:
    """An `AutoencoderTiny` of the shape of `widen_autoencoder`, with random weights."""
    config = {key: value for key, value in given.config.items() if not key.startswith("_")}
    config.pop("block_out_channels", None)
    widths = [2 * width for width in config["encoder_block_out_channels"]]
    channels = config["latent_channels"] + extra
    return AutoencoderTiny(**{**config, "latent_channels": channels, "encoder_block_out_channels": widths})


@torch.no_grad()
def widen_input(old: nn.Conv2d, new: nn.Conv2d) -> None:
    """Copy a convolution into one with more input channels, which it ignores."""
    new.weight.zero_()
    new.weight[:, : old.in_channels] = old.weight
    if new.bias is not None and old.bias is not None:
        new.bias.copy_(old.bias)


@torch.no_grad()
def widen_unet(given: Any, channels: int) -> Any:
    """The same UNet for latents of more channels; it reads none of the new ones and predicts zero for them."""
    net = type(given).from_config({**given.config, "in_channels": channels, "out_channels": channels})
    ends = ("conv_in.", "conv_out.")
    net.load_state_dict({k: v for k, v in given.state_dict().items() if not k.startswith(ends)}, strict=False)
    widen_input(given.conv_in, net.conv_in)
    net.conv_out.weight.zero_()
    net.conv_out.bias.zero_()
    net.conv_out.weight[: given.config.out_channels] = given.conv_out.weight
    net.conv_out.bias[: given.config.out_channels] = given.conv_out.bias
    return net


@torch.no_grad()
def widen_net(given: Any, channels: int) -> Any:
    """The same ControlNet for latents of more channels, which it does not read yet."""
    net = type(given).from_config({**given.config, "in_channels": channels})
    net.load_state_dict({k: v for k, v in given.state_dict().items() if not k.startswith("conv_in.")}, strict=False)
    widen_input(given.conv_in, net.conv_in)
    return net


def _copy_decoder(old: Any, new: Any, channels: int) -> None:
    weights = old.state_dict()
    first = next(name for name, weight in weights.items() if weight.ndim == 4)
    wide = torch.zeros_like(new.state_dict()[first])
    wide[:, :channels] = weights[first]
    new.load_state_dict({**weights, first: wide})


def _copy_half(new: nn.Module, old: nn.Module, width: int) -> None:
    """Copy every convolution into the first half of the channels; the second half is zero."""
    olds = [module for module in old.modules() if isinstance(module, nn.Conv2d)]
    news = [module for module in new.modules() if isinstance(module, nn.Conv2d)]
    for mine, theirs in zip(news, olds, strict=True):
        mine.weight.zero_()
        mine.weight[: theirs.out_channels, : theirs.in_channels] = theirs.weight
        if mine.bias is not None and theirs.bias is not None:
            mine.bias.zero_()
            mine.bias[: theirs.out_channels] = theirs.bias


def _space_to_depth(first: Any, second: Any, third: Any, width: int) -> None:
    """Blocks of 4 × 4 pixels as 48 channels, in the second half of the third convolution's channels."""
    for colour in range(3):
        first.weight[width + colour, colour, 1, 1] = 1
    for layer, count in ((second, 3), (third, 12)):
        for y in range(2):
            for x in range(2):
                for channel in range(count):
                    layer.weight[width + (2 * y + x) * count + channel, width + channel, 1 + y, 1 + x] = 1


def _patches(images: torch.Tensor) -> torch.Tensor:
    """(n, 3, side, side) → (n · side/8 · side/8, 192), blocks of 8 × 8 pixels in the order of `_space_to_depth`."""
    for _ in range(3):
        n, channels, height, width = images.shape
        images = images.view(n, channels, height // 2, 2, width // 2, 2).permute(0, 3, 5, 1, 2, 4)
        images = images.reshape(n, 4 * channels, height // 2, width // 2)
    return images.permute(0, 2, 3, 1).flatten(0, 2)


def _principal(rows: torch.Tensor, count: int) -> torch.Tensor:
    """(n, d) → the `count` directions of most variance, (d, count)."""
    rows = rows.double()
    return torch.linalg.eigh(rows.mT @ rows).eigenvectors.flip(1)[:, :count].float()


def _components(layer: Any, directions: torch.Tensor, width: int) -> None:
    """Each component of a block, and its negative, since ReLU follows: channels of the fourth convolution."""
    parts = directions.view(2, 2, 48, -1)
    for y in range(2):
        for x in range(2):
            for number in range(directions.shape[1]):
                for sign in range(2):
                    row = width + 2 * number + sign
                    layer.weight[row, width : width + 48, 1 + y, 1 + x] = (1 - 2 * sign) * parts[y, x, :, number]


def _predict_components(layer: Any, theirs: Any, features: torch.Tensor, wanted: torch.Tensor, width: int) -> None:
    """The last convolution: the given latents, and each component minus its linear prediction from the features."""
    old = theirs.out_channels
    layer.weight.zero_()
    layer.bias.zero_()
    layer.weight[:old, :width] = theirs.weight
    layer.bias[:old] = theirs.bias
    rows = F.unfold(features, 3, padding=1).mT.flatten(0, 1).double()
    rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
    ridge = 1e-3 * torch.eye(rows.shape[1], dtype=rows.dtype)
    found = torch.linalg.solve(rows.mT @ rows + ridge, rows.mT @ wanted.double()).float()
    for number in range(wanted.shape[1]):
        layer.weight[old + number, :width] = -found[:-1, number].view(width, 3, 3)
        layer.bias[old + number] = -found[-1, number]
        layer.weight[old + number, width + 2 * number, 1, 1] = 1
        layer.weight[old + number, width + 2 * number + 1, 1, 1] = -1
