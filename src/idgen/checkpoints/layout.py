"""The numbers of attention layers in IP-Adapter's files, and the layers of SD1.5 and SDXL.

Supported public adapters name their layers `N.to_k_ip.weight`, where N counts the UNet's attention layers: all down
blocks, then all up blocks, then the middle block; in each transformer block first self-attention (even), then
cross-attention (odd).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import NamedTuple

from ..errors import CheckpointError


class Block(NamedTuple):
    """Transformers of one UNet block."""

    path: str
    attentions: int
    depth: int
    inner_dim: int


SD15 = (
    Block("down_blocks.0", 2, 1, 320),
    Block("down_blocks.1", 2, 1, 640),
    Block("down_blocks.2", 2, 1, 1280),
    Block("up_blocks.1", 3, 1, 1280),
    Block("up_blocks.2", 3, 1, 640),
    Block("up_blocks.3", 3, 1, 320),
    Block("mid_block", 1, 1, 1280),
)
SDXL = (
    Block("down_blocks.1", 2, 2, 640),
    Block("down_blocks.2", 2, 10, 1280),
    Block("up_blocks.0", 3, 10, 1280),
    Block("up_blocks.1", 3, 2, 640),
    Block("mid_block", 1, 10, 1280),
)


def known_layers(count: int) -> dict[str, int]:
    """Path → inner dimension of the cross-attention layers of SD1.5 (16 layers) or SDXL (70 layers).

    Raises:
        CheckpointError: Neither has this many layers.
    """
    for blocks in (SD15, SDXL):
        layers = {
            f"{path}.attentions.{attention}.transformer_blocks.{block}.attn2": inner_dim
            for path, attentions, depth, inner_dim in blocks
            for attention in range(attentions)
            for block in range(depth)
        }
        if len(layers) == count:
            return layers
    raise CheckpointError(
        f"The file is for a UNet with {count} cross-attention layers, which is neither SD1.5 (16) nor SDXL (70). Pass "
        "the UNet that it was made for: IdentityAdapter.from_pretrained(…, unet=pipe.unet)."
    )


def numbered(layers: Iterable[str]) -> dict[str, int]:
    """Path of each cross-attention layer → its number in the file; its self-attention layer has the previous one."""
    return {path: 2 * i + 1 for i, path in enumerate(sorted(layers, key=_file_order))}


def _file_order(path: str) -> tuple[int, list[int]]:
    blocks, first = ("down_blocks", "up_blocks", "mid_block"), path.split(".")[0]
    if first not in blocks:
        raise CheckpointError(f"'{path}' is not a layer of a UNet; paths must begin with {', '.join(blocks)}.")
    return blocks.index(first), [int(number) for number in re.findall(r"\d+", path)]
