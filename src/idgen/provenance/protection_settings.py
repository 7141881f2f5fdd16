"""Settings of `protect`."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import ProvenanceError


@dataclass(frozen=True, kw_only=True)
class ProtectionSettings:
    """How a photo is protected.

    Attributes:
        strength: Largest change of a colour value, of 255. 8 is hard to see; 16 is visible on smooth skin.
        steps: Gradient steps. More steps lower the similarity further.
        seed: Seed of the start and of the simulated edits.

    Raises:
        ProvenanceError: A value is out of range.
    """

    strength: int = 8
    steps: int = 100
    seed: int = 0

    def __post_init__(self) -> None:
        if not 0 <= self.strength <= 64:
            raise ProvenanceError(f"strength must be between 0 and 64, got {self.strength}.")
        if self.steps < 1:
            raise ProvenanceError(f"steps must be at least 1, got {self.steps}.")
