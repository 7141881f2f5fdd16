"""Face encoders with a gradient, by name."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ..errors import EncoderMismatchError
from ..faces import ARCFACE_TEMPLATE, DlibEncoder
from ..faces.onnx_module import NORMALISATIONS, OnnxModule
from .face_embedder import FaceEmbedder


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
    """A face encoder with a gradient, by its name on the command line.

    Args:
        name: "dlib-resnet-v1"; "insightface/" and the name of a pack, whose recogniser is read; or an ONNX file of
            aligned crops, as "arcface:FILE" (RGB in [-1, 1]) or "imagenet:FILE" (ImageNet's mean and deviation).
        checkpointing: See `OnnxModule`.

    Raises:
        EncoderMismatchError: There is no encoder of this name.
        CheckpointError: The file or the pack cannot be opened as a recogniser.
        MissingDependencyError: onnx or insightface is not installed.
    """
    if name == DlibEncoder.name:
        return FaceEmbedder.dlib()
    kind, _, path = name.partition(":")
    if kind in ("arcface", "imagenet") and path:
        return _from_onnx(f"onnx/{Path(path).stem}", path, *NORMALISATIONS[kind], checkpointing)
    if name.startswith("insightface/"):
        from ..faces.insightface import InsightFacePack

        network = InsightFacePack(name.removeprefix("insightface/")).recogniser
        mean, deviation = ((value / 255,) * 3 for value in (network.input_mean, network.input_std))
        return _from_onnx(name, network.model_file, mean, deviation, checkpointing)
    raise EncoderMismatchError(
        f"There is no face encoder '{name}' with a gradient. Use '{DlibEncoder.name}', 'insightface/PACK', "
        "'arcface:FILE.onnx' or 'imagenet:FILE.onnx'."
    )


def _from_onnx(
    name: str, path: str, mean: tuple[float, ...], deviation: tuple[float, ...], checkpointing: bool
) -> FaceEmbedder:
    network = OnnxModule(path, checkpointing)
    height, width = network.size
    if height != width:
        raise EncoderMismatchError(f"'{path}' takes images of {height} x {width} pixels, not square crops.")
    return FaceEmbedder(
        name=name,
        encoder=NormalisedInput(network, mean, deviation).eval(),
        template=ARCFACE_TEMPLATE * width / 112,
        size=width,
    )
