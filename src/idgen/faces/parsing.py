"""Face parsing: the parts of a face photo, of which PuLID reads only the face and the hair."""

from __future__ import annotations

import os
from typing import Any, Protocol

import numpy as np
import torch
import torch.nn.functional as F

from ..errors import CheckpointError

OUTSIDE = ("background", "l_ear", "r_ear", "ear_r", "neck_l", "neck", "cloth", "hat")
"""The labels of CelebAMask-HQ that are not the face: also ears, earring, necklace, neck, clothes and hat."""

_MEAN, _DEVIATION = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)  # of ImageNet


class FaceParser(Protocol):
    """Finds what is not the face in an aligned crop."""

    def outside(self, crop: np.ndarray) -> np.ndarray:
        """(height, width, 3) uint8 RGB → (height, width) bool, true for the labels `OUTSIDE`."""
        ...


class SegmentationParser:
    """A semantic segmentation model of transformers with the labels of CelebAMask-HQ; a `FaceParser`.

    Args:
        model: The model, or its folder or hub id, such as "jonathandinu/face-parsing".

    Raises:
        CheckpointError: The model cannot be loaded, or has other labels.
    """

    def __init__(self, model: torch.nn.Module | str | os.PathLike[str]) -> None:
        from transformers import AutoModelForSemanticSegmentation

        if not isinstance(model, torch.nn.Module):
            try:
                model = AutoModelForSemanticSegmentation.from_pretrained(os.fspath(model), use_safetensors=True)
            except (OSError, ValueError) as error:
                raise CheckpointError(f"The face parser '{model}' could not be opened: {error}") from error
        network: Any = model
        numbers = {name: int(number) for number, name in network.config.id2label.items()}
        if missing := [name for name in OUTSIDE if name not in numbers]:
            raise CheckpointError(f"The face parser has no labels {', '.join(missing)}; it has {', '.join(numbers)}.")
        self.model = network.eval().requires_grad_(False)
        self._outside = torch.tensor([numbers[name] for name in OUTSIDE])

    @torch.no_grad()
    def outside(self, crop: np.ndarray) -> np.ndarray:
        """See `FaceParser`."""
        pixels = torch.from_numpy(crop).permute(2, 0, 1)[None].to(self.model.device, torch.float32) / 255
        mean, deviation = (pixels.new_tensor(values)[:, None, None] for values in (_MEAN, _DEVIATION))
        logits = self.model(((pixels - mean) / deviation).to(self.model.dtype)).logits.float()
        labels = F.interpolate(logits, crop.shape[:2], mode="bilinear", align_corners=False).argmax(1)[0].cpu()
        return torch.isin(labels, self._outside).numpy()
