"""Something costly that is made in one update and used in several."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from ..errors import TrainingError

T = TypeVar("T")


class Reuse(Generic[T]):
    """Makes one thing for each pass of an update, and gives the same things in the next updates.

    Args:
        passes: Of an update.
        updates: That use the same things.

    Raises:
        TrainingError: A number is not positive.
    """

    def __init__(self, passes: int, updates: int) -> None:
        if passes < 1 or updates < 1:
            raise TrainingError(f"Pictures are used in at least one update of one pass, not {updates} of {passes}.")
        self.passes, self.updates = passes, updates
        self._made: list[T] = []
        self._calls = 0

    @property
    def is_spent(self) -> bool:
        """Whether the next call makes something new."""
        return self._calls % (self.passes * self.updates) == 0

    def __call__(self, make: Callable[[], T]) -> T:
        """What this pass uses."""
        if self.is_spent:
            self._made.clear()
        if len(self._made) < self.passes:
            self._made.append(make())
        self._calls += 1
        return self._made[(self._calls - 1) % self.passes]
