"""Structure reward: a scorer trained on pairs of pictures and their distortions."""

from __future__ import annotations

import json
import os
from itertools import pairwise
from typing import Self

import torch
import torch.nn.functional as F
from torch import nn

from ..checkpoints.building import build
from ..errors import CheckpointError, LossError
from ..files import parse_json, read_tensors, write_tensors

FORMAT = "idgen-structure-scorer-1"


def bradley_terry_loss(preferred_scores: torch.Tensor, rejected_scores: torch.Tensor) -> torch.Tensor:
    """`−log σ(f(preferred) − f(rejected))` (ID-Aligner, arXiv 2404.15449, eq. 5): (batch,) each → (batch,)."""
    return F.softplus(rejected_scores - preferred_scores)


class StructureScorer(nn.Module):
    """`R_struct` of ID-Aligner (arXiv 2404.15449), as a small convolutional network instead of ImageReward.

    Train it on the pairs of `Distortion` with `bradley_terry_loss`. Only differences of scores are meaningful.
    Pictures may have any size, and should have the resolution that it was trained on.

    Args:
        channels: Width of each level; each level halves the side.

    Raises:
        LossError: There is no level, or a width is not a multiple of 8.
    """

    def __init__(self, channels: tuple[int, ...] = (32, 64, 128, 128)) -> None:
        super().__init__()
        if not channels or any(width < 8 or width % 8 for width in channels):
            raise LossError(f"channels must be multiples of 8, not {channels}.")
        self.channels = tuple(channels)
        self.levels = nn.Sequential(*(_level(a, b) for a, b in pairwise((3, *channels))))
        self.score = nn.Linear(2 * channels[-1], 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """(batch, 3, height, width), RGB in [0, 1] → (batch,) scores."""
        features = self.levels(2 * images - 1).flatten(2)
        # a single distorted place makes a picture worse, so the maximum is read as well as the mean
        return self.score(torch.cat([features.mean(-1), features.amax(-1)], 1)).squeeze(-1)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write to a safetensors file, atomically."""
        write_tensors(path, self.state_dict(), {"format": FORMAT, "channels": json.dumps(self.channels)})

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Load what `save` wrote; the scorer is frozen.

        Raises:
            CheckpointError: The file is missing, damaged, or not a structure scorer.
        """
        state, metadata = read_tensors(path)
        if metadata.get("format") != FORMAT:
            raise CheckpointError(f"'{path}' is not a structure scorer: its format is {metadata.get('format')!r}.")
        config = {"channels": parse_json(metadata.get("channels", ""), f"The list of channels in '{path}'")}
        return build(cls, config, state, str(path)).requires_grad_(False)

    @classmethod
    def open(cls, structure_scorer: str, device: torch.device) -> Self:
        """`load` on a device."""
        return cls.load(structure_scorer).to(device)


def _level(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, stride=2, padding=1),
        nn.GroupNorm(8, out_channels),
        nn.SiLU(),
        nn.Conv2d(out_channels, out_channels, 3, padding=1),
        nn.GroupNorm(8, out_channels),
        nn.SiLU(),
    )
