"""Encoders: the interface, how a network is fed, and the base class of encoders that are torch or ONNX networks."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
import torch
from torch import nn

from ..errors import EncoderMismatchError
from .align import ARCFACE_TEMPLATE, align_face


@runtime_checkable
class FaceEncoder(Protocol):
    """Embeds aligned crops. Its name is stored with every embedding.

    An encoder of something else than faces has an attribute `detector`, a `FaceDetector` that finds it.
    """

    name: str
    dim: int

    def crop(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """The aligned crop of a face in an RGB uint8 photo, as the network reads it; landmarks are (5, 2) pixels."""
        ...

    def embed(self, crops: np.ndarray) -> np.ndarray:
        """(n, size, size, 3) uint8 RGB → (n, dim) float32, not normalised."""
        ...


@dataclass(frozen=True, eq=False, kw_only=True)
class NetworkInput:
    """Input format of a network.

    Attributes:
        template: (5, 2), positions of the landmarks in a crop of `size` pixels.
        size: Side of the crop in pixels. A network that takes another size gets the template scaled to it.
        colours: Order of the channels.
        mean: Mean of the channels, of values in [0, 1], which is subtracted.
        deviation: Standard deviation, by which the difference is divided.
    """

    template: np.ndarray = field(default_factory=ARCFACE_TEMPLATE.copy)
    size: int = 112
    colours: Literal["RGB", "BGR"] = "RGB"
    mean: tuple[float, ...] = (0.5, 0.5, 0.5)
    deviation: tuple[float, ...] = (0.5, 0.5, 0.5)

    def template_at(self, size: int) -> np.ndarray:
        """(5, 2), the template in a crop of another size."""
        return self.template * (size / self.size)

    def __str__(self) -> str:
        rows = (self.mean, self.deviation)
        mean, deviation = (", ".join(f"{value:.3g}" for value in dict.fromkeys(row)) for row in rows)
        return f"{self.colours}, (x − {mean}) / {deviation}"


class NormalisedInput(nn.Module):
    """A network on RGB images in [0, 1], which are put in order and normalised first.

    Args:
        network: (batch, 3, height, width) → (batch, dim).
        read: How the network is fed.
    """

    mean: torch.Tensor
    deviation: torch.Tensor

    def __init__(self, network: nn.Module, read: NetworkInput) -> None:
        super().__init__()
        self.network, self.bgr = network, read.colours == "BGR"
        self.register_buffer("mean", torch.tensor(read.mean).view(3, 1, 1))
        self.register_buffer("deviation", torch.tensor(read.deviation).view(3, 1, 1))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, 3, height, width), RGB in [0, 1] → (batch, dim)."""
        return self.network(self._normalised(images))

    def inner_features(self, images: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """See `inner_features`."""
        return inner_features(self.network, self._normalised(images))

    def _normalised(self, images: torch.Tensor) -> torch.Tensor:
        images = images.flip(1) if self.bgr else images
        return (images - self.mean) / self.deviation


def inner_features(network: nn.Module, images: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
    """Feature maps of a face encoder's inner layers, one or more for each resolution, and the embeddings.

    Args:
        network: A module with a method `inner_features` of the same result.
        images: (batch, 3, height, width), as the network reads them.

    Returns:
        Maps, (batch, channels, height, width) each, and embeddings, (batch, dim).

    Raises:
        EncoderMismatchError: The network has no such method.
    """
    method: Any = getattr(network, "inner_features", None)
    if method is None:
        raise EncoderMismatchError(
            f"The face encoder {type(network).__name__} does not return the outputs of its inner layers: give it a "
            "method inner_features(images), which returns a list of feature maps and the embeddings."
        )
    return method(images)


class AlignedEncoder(ABC):
    """The base of encoders with a gradient: networks on crops that are aligned to a template.

    A subclass sets the attributes and implements `torch_module`; `docs/encoders.md` has an example.

    Attributes:
        name: Stored with every embedding.
        dim: Length of an embedding.
        template: (5, 2), positions of the landmarks in the crop.
        size: Side of the crop in pixels.
    """

    name: str
    dim: int
    template: np.ndarray
    size: int

    @abstractmethod
    def torch_module(self, checkpointing: bool = False) -> nn.Module:
        """The frozen network, (batch, 3, size, size) RGB in [0, 1] → (batch, dim), with a gradient to the pixels.

        Args:
            checkpointing: Recompute activations in the backward pass, which takes less memory and more time.
        """

    def crop(self, image: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """See `FaceEncoder`."""
        return align_face(image, landmarks, self.template, self.size)

    @torch.no_grad()
    def embed(self, crops: np.ndarray) -> np.ndarray:
        """See `FaceEncoder`."""
        network = self.torch_module()
        first = next(chain(network.parameters(), network.buffers()), torch.zeros(0))
        pixels = torch.from_numpy(crops).to(first.device).permute(0, 3, 1, 2).to(first.dtype) / 255
        return network(pixels).float().cpu().numpy()


def aligned(encoder: FaceEncoder) -> AlignedEncoder:
    """The encoder, as one whose inner feature maps can be read.

    Raises:
        EncoderMismatchError: It has no network with a gradient.
    """
    if not isinstance(encoder, AlignedEncoder):
        raise EncoderMismatchError(f"The face encoder '{encoder.name}' has no network whose inner maps are known.")
    return encoder
