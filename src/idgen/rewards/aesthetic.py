"""Aesthetic reward: a small head on the features of an image encoder."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import nn
from transformers import CLIPVisionModelWithProjection
from transformers.image_utils import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from ..checkpoints.building import limited, load_strictly
from ..errors import CheckpointError, LossError
from ..files import read_tensors


class AestheticHead(nn.Module):
    """A stack of linear layers without activations: LAION's aesthetic predictors.

    The published heads (`improved-aesthetic-predictor`, `sac+logos+ava1-l14-linearMSE`) have dropout between the
    layers and no activation; the first one (`aesthetic-predictor`, `sa_0_4_vit_l_14_linear`) is a single layer.

    Args:
        dims: Widths of the layers from the features to the score; (768, 1024, 128, 64, 16, 1) is LAION's for CLIP
            ViT-L/14.
    """

    def __init__(self, dims: tuple[int, ...]) -> None:
        super().__init__()
        if len(dims) < 2 or dims[-1] != 1:
            raise LossError(f"dims must end with 1, for one score, and have at least two entries, not {dims}.")
        self.layers = nn.Sequential(*(nn.Linear(a, b) for a, b in pairwise(dims)))

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        """(batch, dim) features of unit length → (batch,) scores, about 1 to 10 for LAION's heads."""
        return self.layers(features).squeeze(-1)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Read a head from safetensors: `layers.0.weight`, `layers.2.weight`, …, or `weight` and `bias` alone.

        Layers are taken in the order of their numbers, which have gaps where dropout was.

        Raises:
            CheckpointError: The file is missing, damaged, or not such a head.
        """
        tensors, _ = read_tensors(path)
        numbered = {key: re.fullmatch(r"(?:(?:.*\.)?(\d+)\.)?(weight|bias)", key) for key in tensors}
        if not all(numbered.values()):
            raise CheckpointError(f"'{path}' is not a head of linear layers; it holds {sorted(tensors)}.")
        order = sorted({int(match[1] or 0) for match in numbered.values() if match})
        state = {
            f"layers.{order.index(int(match[1] or 0))}.{match[2]}": tensors[key]
            for key, match in numbered.items()
            if match
        }
        weights = [state.get(f"layers.{i}.weight", torch.empty(0)) for i in range(len(order))]
        if not weights or any(weight.ndim != 2 for weight in weights):
            raise CheckpointError(f"'{path}' is not a head of linear layers: a weight is not a matrix.")
        try:
            with limited(str(path)), torch.device("meta"):
                head = cls((weights[0].shape[1], *(len(weight) for weight in weights)))
            load_strictly(head, state, str(path))
        except (CheckpointError, LossError) as error:
            raise CheckpointError(f"The layers in '{path}' do not fit together: {error}") from error
        return head.eval().requires_grad_(False)


class ClipImageEmbeds(nn.Module):
    """Embeddings of pictures by CLIP, of unit length, with a gradient.

    Args:
        model: CLIP's image encoder; it is frozen.
    """

    def __init__(self, model: CLIPVisionModelWithProjection) -> None:
        super().__init__()
        self.model: Any = model.eval().requires_grad_(False)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, 3, height, width), RGB in [0, 1] → (batch, dim). The centre square is resized to CLIP's size."""
        side = min(images.shape[-2:])
        top, left = ((n - side) // 2 for n in images.shape[-2:])
        size = self.model.config.image_size
        square = images[..., top : top + side, left : left + side].to(self.model.dtype)
        pixels = F.interpolate(square, (size, size), mode="bicubic", antialias=True)
        mean, deviation = (pixels.new_tensor(values)[:, None, None] for values in (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD))
        return F.normalize(self.model((pixels - mean) / deviation).image_embeds, dim=-1)


@dataclass(frozen=True, eq=False)
class AestheticReward:
    """`R_appeal` of ID-Aligner (arXiv 2404.15449), with a published head in place of its unpublished model.

    Attributes:
        features: Pictures (batch, 3, height, width) in [0, 1] → (batch, dim); `ClipImageEmbeds` for LAION's heads.
        head: Features (batch, dim) → scores (batch,).
    """

    features: nn.Module
    head: AestheticHead

    @classmethod
    def open(cls, aesthetic_head: str, aesthetic_clip: str, device: torch.device) -> Self:
        """Open a predictor's head and the CLIP model that it was made for.

        Raises:
            CheckpointError: A network cannot be opened.
        """
        head = AestheticHead.load(aesthetic_head).to(device)
        try:
            clip = CLIPVisionModelWithProjection.from_pretrained(aesthetic_clip)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"CLIP could not be opened from '{aesthetic_clip}': {error}") from error
        return cls(ClipImageEmbeds(clip).to(device), head)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, 3, height, width), RGB in [0, 1] → (batch,) scores."""
        return self.head(self.features(images))
