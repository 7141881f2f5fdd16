"""The default face encoder: dlib's ResNet as a torch module."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ..errors import CheckpointError
from .align import DLIB_TEMPLATE
from .detectors import dlib_weights
from .encoder import AlignedEncoder, NetworkInput


class _Conv(nn.Module):
    """Convolution, then a gain and a bias per channel (dlib's batch normalisation after training)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int = 1, padding: int = 0) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding)
        self.gain = nn.Parameter(torch.ones(out_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(out_channels, 1, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(x) * self.gain + self.bias


class _Block(nn.Module):
    """Residual block of dlib's network."""

    def __init__(self, in_channels: int, out_channels: int, down: bool) -> None:
        super().__init__()
        self.down = down
        self.conv1 = _Conv(in_channels, out_channels, 3, stride=2 if down else 1, padding=0 if down else 1)
        self.conv2 = _Conv(out_channels, out_channels, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.conv2(F.relu(self.conv1(x)))
        if self.down:
            x = F.avg_pool2d(x, 2, 2)
        # dlib pads tensors of unequal size with zeros, in space and in channels, before it adds them
        shape = [max(a, b) for a, b in zip(x.shape[1:], y.shape[1:], strict=True)]
        return F.relu(_pad(x, shape) + _pad(y, shape))


def _pad(x: torch.Tensor, shape: list[int]) -> torch.Tensor:
    channels, height, width = (want - have for want, have in zip(shape, x.shape[1:], strict=True))
    return F.pad(x, (0, width, 0, height, 0, channels))


class DlibEncoder(nn.Module, AlignedEncoder):
    """dlib's face recognition ResNet (`dlib_face_recognition_resnet_model_v1`, CC0), batched and differentiable.

    Its metric is the Euclidean distance between raw embeddings: below 0.6 they show the same person. The weights are
    frozen; gradients flow to the pixels.
    """

    name = "dlib-resnet-v1"
    dim = 128
    read = NetworkInput(
        template=DLIB_TEMPLATE,
        size=150,
        mean=(122.782 / 255, 117.001 / 255, 104.298 / 255),
        deviation=(256 / 255, 256 / 255, 256 / 255),
    )
    template, size = read.template, read.size
    mean: torch.Tensor
    _STAGES = (
        (32, 3),
        (64, 4),
        (128, 3),
        (256, 3),
        (256, 1),
    )  # channels and blocks; all but the first halve the resolution

    def __init__(self, weights: str | Path | None = None) -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor([122.782, 117.001, 104.298]).view(3, 1, 1), persistent=False)
        self.stem = _Conv(3, 32, 7, stride=2)
        blocks, channels = [], 32
        for stage, (width, count) in enumerate(self._STAGES):
            for i in range(count):
                blocks.append(_Block(channels, width, down=stage > 0 and i == 0))
                channels = width
        self.blocks = nn.Sequential(*blocks)
        self.head = nn.Linear(256, self.dim, bias=False)
        self._load_dat(Path(weights or dlib_weights("dlib_face_recognition_resnet_model_v1.dat")))
        self.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Embed crops.

        Args:
            images: (batch, 3, 150, 150), RGB in [0, 1], cut with `DLIB_TEMPLATE` (see `warp_faces`).

        Returns:
            (batch, 128), not normalised.
        """
        return self.inner_features(images)[1]

    def inner_features(self, images: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """See `inner_features`: the outputs of the first four stages."""
        x = (images * 255 - self.mean) / 256
        x = F.max_pool2d(F.relu(self.stem(x)), 3, 2)
        found = []
        first = 0
        for _, count in self._STAGES:
            x = self.blocks[first : first + count](x)
            found.append(x)
            first += count
        return found[:-1], self.head(x.mean((2, 3)))

    def torch_module(self, checkpointing: bool = False) -> nn.Module:
        """Itself; its activations are small."""
        return self

    def _load_dat(self, path: Path) -> None:
        """Load the weights from dlib's file, which has the layers in the order of evaluation."""
        tensors = iter(_read_dat(path))
        try:
            for layer in (module for module in self.modules() if isinstance(module, _Conv)):
                weight, bias = next(tensors).split([layer.conv.weight.numel(), layer.gain.numel()])
                layer.conv.load_state_dict({"weight": weight.view_as(layer.conv.weight), "bias": bias})
                layer.gain.data, layer.bias.data = next(tensors).clone().view(2, -1, 1, 1)  # not the file in memory
            self.head.weight.data = next(tensors).view(256, self.dim).T.contiguous()
        except (StopIteration, RuntimeError, ValueError) as error:
            raise CheckpointError(f"'{path}' is not dlib's face recognition network.") from error


_TAG = re.compile(rb"con_\d|affine_\d?|fc_\d?")


def _read_dat(path: Path) -> list[torch.Tensor]:
    """All parameter tensors of a file written by `dlib::serialize`, in its order, flat."""
    try:
        data = bytearray(path.read_bytes())  # a tensor can share the memory of this kind of bytes
    except OSError as error:
        raise CheckpointError(f"dlib's weights could not be read: {error}") from error
    tensors, position = [], 0
    while tag := _TAG.search(data, position):
        end = position = tag.end()
        if tag.group().startswith(b"fc_"):  # the number of outputs and the kind of bias precede the tensor
            _, position = _read_int(data, _read_int(data, position)[1])
        version, position = _read_int(data, position)
        shape = []
        for _ in range(4):
            side, position = _read_int(data, position)
            shape.append(side)
        size = int(np.prod(shape))
        # a tag can also occur by chance, or belong to a layer without parameters
        if version == 2 and 1 < size <= (len(data) - position) // 4:
            tensors.append(torch.from_numpy(np.frombuffer(data, "<f4", size, position)))
            end = position + 4 * size
        position = end
    return tensors


def _read_int(data: bytes | bytearray, position: int) -> tuple[int, int]:
    """dlib's integers: a byte with sign (high bit) and length (low bits), then the magnitude, lowest byte first."""
    control = data[position] if position < len(data) else 0
    end = position + 1 + (control & 0x0F)
    value = int.from_bytes(data[position + 1 : end], "little")
    return (-value if control & 0x80 else value), end
