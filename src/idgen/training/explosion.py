"""Gradients that explode: far longer than those before them."""

from __future__ import annotations

from dataclasses import dataclass

DECAY = 0.99
"""The average is over about a hundred updates, and nothing is judged before there were as many: a new adapter's
gradients grow from almost nothing."""


@dataclass
class NormWatch:
    """Tells an exploding gradient from the usual ones by its length.

    Attributes:
        ratio: So many times the average is too long; 0 lets all pass that is finite.
        total: The average of the lengths that passed, before it is corrected for its start at 0.
        seen: How many passed.
    """

    ratio: float
    total: float = 0.0
    seen: int = 0

    def __call__(self, norm: float) -> bool:
        """Whether a finite length passes; one that does counts in the average."""
        enough = self.seen * (1 - DECAY) >= 1
        if self.ratio and enough and norm > self.ratio * self.total / (1 - DECAY**self.seen):
            return False
        self.total = DECAY * self.total + (1 - DECAY) * norm
        self.seen += 1
        return True
