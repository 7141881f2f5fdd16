"""`ImageEncoder`: makes the features of a photo that some adapters read in addition to the face embedding."""

from __future__ import annotations

from typing import Protocol

import numpy as np
import torch


class ImageEncoder(Protocol):
    """Encodes a photo of a person, or a part of it.

    Attributes:
        name: Stored with the features in an `Identity`; adapters accept features of their own encoder only.
        dim: Width of the features.
    """

    name: str
    dim: int

    def encode(self, photo: np.ndarray, landmarks: np.ndarray) -> torch.Tensor:
        """(height, width, 3) uint8 RGB and the (5, 2) landmarks of the face → (tokens, dim), float32 on the CPU."""
        ...

    def unconditional(self) -> torch.Tensor | None:
        """Features for the negative half of guidance, (1, tokens, dim); `None` for adapters that need none."""
        ...
