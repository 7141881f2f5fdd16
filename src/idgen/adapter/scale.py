"""How strongly the identity acts: a number, a value per block, or a schedule over the run."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TypeAlias

from ..errors import AdapterError

BlockScale: TypeAlias = float | Mapping[str, float]
"""One number, or numbers by block: `{"down": 0.2, "mid": 0.5, "up_blocks.1": 1.0}`.

The longest name that a layer's path begins with counts; layers that nobody names get 0."""


@dataclass(frozen=True, kw_only=True)
class ScaleSchedule:
    """A scale that changes while the picture is drawn.

    Progress runs from 0 (pure noise) to 1 (the finished picture). In a pipeline it is the share of the scheduler's
    steps that are done, so image-to-image with `strength=0.6` starts at 0.4. Elsewhere it is read from the timestep.

    Attributes:
        scale: What holds between `start` and `end`.
        start: The identity does not act before this progress.
        end: The identity does not act from this progress on (1 keeps it to the last step).
        function: Progress → factor on `scale`.
    """

    scale: BlockScale = 1.0
    start: float = 0.0
    end: float = 1.0
    function: Callable[[float], float] | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start < self.end <= 1:
            raise ValueError(f"A schedule needs 0 <= start < end <= 1, not start={self.start}, end={self.end}.")

    def factor(self, progress: float) -> float:
        """What the scale is multiplied with at this progress."""
        if progress < self.start or (progress >= self.end and self.end < 1):
            return 0.0
        return 1.0 if self.function is None else float(self.function(progress))


Scale: TypeAlias = BlockScale | ScaleSchedule


def check_scale(scale: Scale, layers: Iterable[str]) -> None:
    """Refuse what cannot be a scale for these layers.

    Raises:
        AdapterError: It is neither a number, a mapping nor a `ScaleSchedule`, names a block that does not exist, or
            holds a number that is negative or not finite.
    """
    blocks = scale.scale if isinstance(scale, ScaleSchedule) else scale
    if isinstance(blocks, Mapping):
        layers = list(layers)
        for name in blocks:
            if not any(_begins_with(layer, name) for layer in layers):
                tops = sorted({".".join(layer.split(".")[: 1 if layer.startswith("mid") else 2]) for layer in layers})
                raise AdapterError(f"No layer of the adapter lies in '{name}'. Blocks with layers: {tops}.")
    for number in blocks.values() if isinstance(blocks, Mapping) else [blocks]:
        if isinstance(number, bool) or not isinstance(number, int | float):
            raise AdapterError(f"A scale is a number, a value per block or a ScaleSchedule, not {number!r}.")
        if not 0 <= number < math.inf:
            raise AdapterError(f"A scale must be >= 0 and finite, got {number}.")


def layer_scale(scale: BlockScale, layer: str) -> float:
    """The number that holds for one layer."""
    if isinstance(scale, Mapping):
        names = [name for name in scale if _begins_with(layer, name)]
        return float(scale[max(names, key=len)]) if names else 0.0
    return float(scale)


def _begins_with(layer: str, name: str) -> bool:
    """Whether a layer's path lies in a block; "down", "mid" and "up" are short for the block's full name."""
    name = {"down": "down_blocks", "mid": "mid_block", "up": "up_blocks"}.get(name, name)
    return layer == name or layer.startswith(name + ".")
