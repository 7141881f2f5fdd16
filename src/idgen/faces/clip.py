"""CLIP features of an aligned face, which FaceID-Plus adapters read in addition to the embedding."""

from __future__ import annotations

import os
from typing import cast

import numpy as np
import torch
from transformers import CLIPVisionModelWithProjection

from ..errors import CheckpointError
from .align import ARCFACE_TEMPLATE, align_face

MEAN = (0.48145466, 0.4578275, 0.40821073)
DEVIATION = (0.26862954, 0.26130258, 0.27577711)


def normalise_for_clip(images: np.ndarray) -> torch.Tensor:
    """(n, height, width, 3) uint8 RGB → (n, 3, height, width) float32 with CLIP's mean and deviation of the pixels."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, deviation = (pixels.new_tensor(values)[:, None, None] for values in (MEAN, DEVIATION))
    return (pixels - mean) / deviation


class ClipFeatures:
    """The penultimate layer of a CLIP image encoder (IP-Adapter, arXiv 2308.06721, "Plus"); an `ImageEncoder`.

    Args:
        model: The image encoder, or its folder or hub id.
        subfolder: Subfolder of the folder or repository.

    Raises:
        CheckpointError: The image encoder cannot be loaded.
    """

    def __init__(self, model: CLIPVisionModelWithProjection | str | os.PathLike[str], subfolder: str = "") -> None:
        if not isinstance(model, CLIPVisionModelWithProjection):
            try:
                model = CLIPVisionModelWithProjection.from_pretrained(
                    os.fspath(model), subfolder=subfolder, use_safetensors=True
                )
            except (OSError, ValueError) as error:
                raise CheckpointError(f"The image encoder '{model}' could not be opened: {error}") from error
        self.model = model.eval().requires_grad_(False)
        self.size = cast(int, model.config.image_size)
        self.dim = cast(int, model.config.hidden_size)
        self.name = f"clip-{self.dim}x{model.config.num_hidden_layers}"

    def crop(self, photo: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
        """(height, width, 3) uint8 RGB and (5, 2) landmarks → the aligned face, (size, size, 3) uint8."""
        return align_face(photo, landmarks, ARCFACE_TEMPLATE * self.size / 112, self.size)

    def encode(self, photo: np.ndarray, landmarks: np.ndarray) -> torch.Tensor:
        """See `ImageEncoder`; reads the aligned face."""
        return self(self.crop(photo, landmarks)[None])[0]

    @torch.no_grad()
    def __call__(self, crops: np.ndarray) -> torch.Tensor:
        """(n, size, size, 3) uint8 RGB → (n, tokens, dim), float32."""
        return self._features(normalise_for_clip(crops).to(self.model.device))

    @torch.no_grad()
    def unconditional(self) -> torch.Tensor:
        """Features of an all-zero image for the negative half of guidance, (1, tokens, dim)."""
        return self._features(torch.zeros(1, 3, self.size, self.size, device=self.model.device))

    def _features(self, pixels: torch.Tensor) -> torch.Tensor:
        output = self.model(pixels.to(self.model.dtype), output_hidden_states=True)
        return output.hidden_states[-2].float().cpu()
