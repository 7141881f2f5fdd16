"""`InnerEncoder`: the inner feature map of another face encoder as an embedding."""

from __future__ import annotations

import torch
from torch import nn

from .encoder import AlignedEncoder, FaceEncoder, aligned, inner_features


class InnerMap(nn.Module):
    """A network whose output is the last feature map of another one, (batch, positions · channels).

    The channels of the first position come first. All numbers are those of the map.

    Args:
        network: A network with `inner_features`.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, 3, height, width) → (batch, positions · channels)."""
        return self.map(images).flatten(2).mT.flatten(1)

    def map(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, 3, height, width) → (batch, channels, height, width)."""
        return inner_features(self.network, images)[0][-1]

    def inner_features(self, images: torch.Tensor) -> tuple[list[torch.Tensor], torch.Tensor]:
        """See `inner_features`."""
        found = inner_features(self.network, images)[0]
        return found, found[-1].flatten(2).mT.flatten(1)


class InnerEncoder(AlignedEncoder):
    """The last feature map before the embedding of a face encoder, for the projection `rows` (FaceChain-FACT).

    A map knows where eyes and mouth are and how they look in this photo. An embedding is trained to forget that.

    Attributes:
        rows: Positions of the map.

    Args:
        encoder: An encoder whose network has `inner_features`.

    Raises:
        EncoderMismatchError: It has no network with a gradient, or the network no feature maps.
    """

    def __init__(self, encoder: FaceEncoder) -> None:
        self._of = aligned(encoder)
        self.name = f"inner/{encoder.name}"
        self.template, self.size = self._of.template, self._of.size
        self._network = InnerMap(self._of.torch_module()).eval()
        with torch.no_grad():
            _, channels, height, width = self._network.map(torch.zeros(1, 3, self.size, self.size)).shape
        self.rows, self.dim = height * width, channels * height * width

    def torch_module(self, checkpointing: bool = False) -> nn.Module:
        """See `AlignedEncoder`."""
        return InnerMap(self._of.torch_module(checkpointing)).eval() if checkpointing else self._network
