"""Detection of reward hacking: the similarity used in training rises while an independent one falls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from ..errors import LossError


class Verdict(StrEnum):
    """What to do after a measurement."""

    CONTINUE = "continue"
    WARN = "warn"
    STOP = "stop"


@dataclass(frozen=True, kw_only=True)
class RewardHackingGuard:
    """Compares the similarities by two encoders over a run: the reward's, and one that is never used in training.

    A line is fitted to each series over the last `window` measurements. The two diverge when the first line rises and
    the second falls, each by more than `tolerance` over the window. No paper gives such a rule; this one is ours.

    Attributes:
        window: Number of measurements that a line is fitted to.
        tolerance: Smallest change of the similarity over the window.
        patience: Number of measurements in a row at which they must diverge for the verdict to be stop; until then it
            is warn.

    Raises:
        LossError: window < 3, tolerance < 0 or patience < 1.
    """

    window: int = 5
    tolerance: float = 0.01
    patience: int = 3

    def __post_init__(self) -> None:
        if self.window < 3 or self.tolerance < 0 or self.patience < 1:
            raise LossError(f"The guard needs window >= 3, tolerance >= 0 and patience >= 1, not {self}.")

    def __call__(self, reward: Sequence[float], evaluation: Sequence[float]) -> Verdict:
        """The verdict on the run so far. It depends only on the two series, so a resumed run gets the same verdict.

        Args:
            reward: Mean similarity by the reward's encoder at each measurement, oldest first.
            evaluation: The same by the evaluation's encoder.

        Raises:
            LossError: The lengths differ, or a value is not finite.
        """
        if len(reward) != len(evaluation):
            raise LossError(f"The series must have the same length, not {len(reward)} and {len(evaluation)}.")
        if not all(map(math.isfinite, (*reward, *evaluation))):
            raise LossError("The similarities must be finite; leave out measurements without a face.")
        diverged = 0
        for end in range(len(reward), self.window - 1, -1):
            rise, fall = (_change(series[end - self.window : end]) for series in (reward, evaluation))
            if not (rise > self.tolerance and fall < -self.tolerance):
                break
            diverged += 1
        if diverged >= self.patience:
            return Verdict.STOP
        return Verdict.WARN if diverged else Verdict.CONTINUE


def _change(series: Sequence[float]) -> float:
    """Rise of the least-squares line through a series from its first point to its last."""
    return float(np.polyfit(np.arange(len(series)), np.asarray(series, float), 1)[0]) * (len(series) - 1)
