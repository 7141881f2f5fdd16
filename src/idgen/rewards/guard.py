"""Reward hacking: the similarity that is trained on rises while the one that is not falls."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np

from ..errors import LossError


class Verdict(StrEnum):
    """What to do about the last measurement."""

    CONTINUE = "continue"
    WARN = "warn"
    STOP = "stop"


@dataclass(frozen=True, kw_only=True)
class RewardHackingGuard:
    """Compares two encoders over a training run: the reward's, and one that the training never sees.

    Both similarities are fitted with a line over the last `window` measurements. They part when the first line rises
    and the second falls, each by more than `tolerance` over the window. ID-Aligner trains and reports on encoders of
    one family and PuLID notes blurred faces from the identity loss alone; no paper gives such a rule, so this is ours.

    Attributes:
        window: Measurements that a line is fitted to.
        tolerance: Change of the cosine over the window that counts.
        patience: How many measurements in a row they must part until it says stop; the first gives a warning.

    Raises:
        LossError: The window is under 3, the tolerance negative or the patience under 1.
    """

    window: int = 5
    tolerance: float = 0.01
    patience: int = 3

    def __post_init__(self) -> None:
        if self.window < 3 or self.tolerance < 0 or self.patience < 1:
            raise LossError(f"The guard needs window >= 3, tolerance >= 0 and patience >= 1, not {self}.")

    def __call__(self, reward: Sequence[float], evaluation: Sequence[float]) -> Verdict:
        """Judge the run so far; depends on nothing but the two series, so a resumed run is judged the same.

        Args:
            reward: Mean similarity by the reward's encoder at each measurement, oldest first.
            evaluation: The same by the evaluation's encoder.

        Raises:
            LossError: The series are not equally long, or a value is not finite.
        """
        if len(reward) != len(evaluation):
            raise LossError(f"The series must be equally long, not {len(reward)} and {len(evaluation)}.")
        if not all(map(math.isfinite, (*reward, *evaluation))):
            raise LossError("The similarities must be finite numbers; leave out measurements without a face.")
        parted = 0
        for end in range(len(reward), self.window - 1, -1):
            rise, fall = (_change(series[end - self.window : end]) for series in (reward, evaluation))
            if not (rise > self.tolerance and fall < -self.tolerance):
                break
            parted += 1
        if parted >= self.patience:
            return Verdict.STOP
        return Verdict.WARN if parted else Verdict.CONTINUE


def _change(series: Sequence[float]) -> float:
    """By how much the line of least squares through a series rises from its first point to its last."""
    return float(np.polyfit(np.arange(len(series)), np.asarray(series, float), 1)[0]) * (len(series) - 1)
