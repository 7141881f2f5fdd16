"""Strength of identity conditioning: a number, a value per block, or a schedule over the steps."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

import torch

from ..errors import AdapterError

BlockScale: TypeAlias = float | Mapping[str, float]
"""A number, or numbers by block: `{"down": 0.2, "mid": 0.5, "up_blocks.1": 1.0}`.

The longest matching name applies to a layer. Layers of blocks without a number get 0."""


@dataclass(frozen=True, kw_only=True)
class ScaleSchedule:
    """A scale that changes during the denoising steps.

    Progress runs from 0 (pure noise) to 1 (the finished image). In a pipeline it is the fraction of the scheduler's
    steps that are done, so image-to-image with `strength=0.6` starts at 0.4. Elsewhere it follows from the timestep.

    Attributes:
        scale: The scale between `start` and `end`; 0 outside.
        start: Progress at which identity conditioning starts.
        end: Progress at which it ends; 1 includes the last step.
        function: Progress → factor on `scale`.

    Raises:
        ValueError: `start` and `end` are not in order or not in [0, 1].
    """

    scale: BlockScale = 1.0
    start: float = 0.0
    end: float = 1.0
    function: Callable[[float], float] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= 1:
            raise ValueError(f"A schedule requires 0 <= start < end <= 1, got start={self.start}, end={self.end}.")

    def factor(self, progress: float) -> float:
        """Factor on the scale at this progress."""
        if progress < self.start or (progress >= self.end and self.end < 1):
            return 0.0
        return 1.0 if self.function is None else float(self.function(progress))


Scale: TypeAlias = BlockScale | ScaleSchedule


def scale_at(
    scale: Scale, timestep: torch.Tensor | float, progress: Callable[[float], float]
) -> tuple[BlockScale, float]:
    """The scale at a timestep: the part without a schedule, and the schedule's factor on it.

    Args:
        scale: With or without a schedule.
        timestep: The timestep of the UNet.
        progress: Timestep → progress.
    """
    if not isinstance(scale, ScaleSchedule):
        return scale, 1.0
    timestep = float(timestep.flatten()[0] if isinstance(timestep, torch.Tensor) else timestep)
    return scale.scale, scale.factor(progress(timestep))


def check_scale(scale: Scale, layers: Iterable[str]) -> None:
    """Check that a value is a scale for these layers.

    Raises:
        AdapterError: It is not a number, a mapping or a `ScaleSchedule`, it names an unknown block, or a number in it
            is negative or not finite.
    """
    blocks = scale.scale if isinstance(scale, ScaleSchedule) else scale
    if isinstance(blocks, Mapping):
        in_blocks(layers, blocks)
    for number in blocks.values() if isinstance(blocks, Mapping) else [blocks]:
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise AdapterError(f"A scale must be a number, a value per block or a ScaleSchedule, got {number!r}.")
        if not 0 <= number < math.inf:
            raise AdapterError(f"A scale must be >= 0 and finite, got {number}.")


def in_blocks(layers: Iterable[str], blocks: Iterable[str]) -> list[str]:
    """The layers that are in one of these blocks; all layers if there are no blocks.

    Raises:
        AdapterError: A block has no layers.
    """
    layers, blocks = list(layers), list(blocks)
    for name in blocks:
        if not any(_begins_with(layer, name) for layer in layers):
            tops = sorted({".".join(layer.split(".")[: 1 if layer.startswith("mid") else 2]) for layer in layers})
            raise AdapterError(f"The adapter has no layers in block '{name}'; blocks with layers: {tops}.")
    return [each for each in layers if not blocks or any(_begins_with(each, name) for name in blocks)]


def layer_scale(scale: BlockScale, layer: str) -> float:
    """The scale of one layer."""
    if isinstance(scale, Mapping):
        names = [name for name in scale if _begins_with(layer, name)]
        return float(scale[max(names, key=len)]) if names else 0.0
    return float(scale)


def _begins_with(layer: str, name: str) -> bool:
    """Whether a layer is in a block; "down", "mid" and "up" are short names of blocks."""
    name = {"down": "down_blocks", "mid": "mid_block", "up": "up_blocks"}.get(name, name)
    return layer == name or layer.startswith(name + ".")
