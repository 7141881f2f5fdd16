"""Weights in files of a few megabytes, the largest that can be copied back from the GPU machine."""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import nn

PIECE = 15 << 20
"""Largest number of bytes of a file; no tensor may be larger."""


def save_pieces(net: nn.Module, folder: Path, name: str) -> None:
    """Write the weights in float16 as `<name>-0.safetensors` and so on."""
    pieces: list[dict[str, torch.Tensor]] = [{}]
    size = 0
    for key, weight in net.state_dict().items():
        half = weight.half().contiguous().cpu() if weight.is_floating_point() else weight.contiguous().cpu()
        size += half.nbytes
        if size > PIECE and pieces[-1]:
            pieces.append({})
            size = half.nbytes
        pieces[-1][key] = half
    for number, piece in enumerate(pieces):
        save_file(piece, folder / f"{name}-{number}.safetensors")


def load_pieces(net: nn.Module, folder: Path, name: str) -> None:
    """Read what `save_pieces` wrote into `net`.

    Raises:
        RuntimeError: A piece is missing, or they are those of another network.
    """
    weights: dict[str, torch.Tensor] = {}
    for file in sorted(folder.glob(f"{name}-*.safetensors")):
        weights |= load_file(file)
    net.load_state_dict(
        {key: weight.float() if weight.is_floating_point() else weight for key, weight in weights.items()}
    )
