"""Face encoders with a gradient, by name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..errors import EncoderMismatchError
from ..faces import ARCFACE_TEMPLATE, DlibEncoder
from ..faces.onnx_module import NORMALISATIONS, OnnxModule
from .faces import FaceEmbedder


class NormalisedInput(nn.Module):
    """A network on images that are normalised first.

    Args:
        network: (batch, 3, height, width) → (batch, dim).
        mean: Of each channel.
        deviation: Standard deviation of each channel.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, network: nn.Module, mean: tuple[float, ...], deviation: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(deviation).view(3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, 3, height, width), RGB in [0, 1] → (batch, dim)."""
        return self.network((images - self.mean) / self.deviation)


def open_embedder(name: str, checkpointing: bool = False) -> FaceEmbedder:
    """A face encoder with a gradient by its name on the command line.

    Args:
        name: "dlib-resnet-v1"; or how an ONNX file of aligned crops is normalised and its path: "arcface:FILE" (RGB in
            [-1, 1], as in insightface's packs) or "imagenet:FILE".
        checkpointing: See `OnnxModule`.

    Raises:
        EncoderMismatchError: There is no encoder of this name.
        CheckpointError: The file cannot be opened as a recogniser.
    """
    if name == DlibEncoder.name:
        return FaceEmbedder.dlib()
    kind, _, path = name.partition(":")
    if kind not in ("arcface", "imagenet") or not path:
        raise EncoderMismatchError(
            f"'{name}' is no face encoder with a gradient: use '{DlibEncoder.name}', 'arcface:FILE.onnx' or "
            "'imagenet:FILE.onnx'."
        )
    network = OnnxModule(path, checkpointing)
    height, width = network.size
    if height != width:
        raise EncoderMismatchError(f"'{path}' takes images of {height} x {width} pixels, not square crops.")
    encoder = NormalisedInput(network, *NORMALISATIONS[kind]).eval()
    template = np.asarray(ARCFACE_TEMPLATE) * width / 112
    return FaceEmbedder(name=f"onnx/{Path(path).stem}", encoder=encoder, template=template, size=width)
