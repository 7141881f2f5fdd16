"""Which faces make which batch: a function of the seed alone, so every process knows it and any step can be found."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from ..errors import DataError


class Position(NamedTuple):
    """A place in the endless stream of batches.

    Attributes:
        epoch: From 0.
        batch: Of the epoch, from 0.
    """

    epoch: int
    batch: int


class Planned(NamedTuple):
    """A batch.

    Attributes:
        position: Of the batch.
        faces: Numbers of the faces in it.
    """

    position: Position
    faces: list[int]


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """The order of an epoch: shards shuffled, a few of them open at a time, their faces mixed, batches of one size.

    Each face is in one batch of an epoch, once. Batches of a size that are not full at the end of an epoch come last,
    smaller.

    Attributes:
        shards: (faces,), the shard of each face.
        size: Face → height and width of its picture.
        batch_size: Faces in a batch.
        seed: Of the order.
        window: So many shards are mixed. More mix better, fewer read nearer to each other.

    Raises:
        DataError: There is no face, or a number is not positive.
    """

    shards: np.ndarray
    size: Callable[[int], tuple[int, int]]
    batch_size: int
    seed: int = 0
    window: int = 8

    def __post_init__(self) -> None:
        if not len(self.shards) or self.batch_size < 1 or self.window < 1:
            raise DataError(f"A plan needs faces, and a batch and a window of at least one: {len(self.shards)} faces.")

    def batches(self, start: Position, rank: int = 0, world: int = 1) -> Iterator[tuple[Planned, Position]]:
        """The batches of one process from a position on, without end.

        All processes take one of `world` batches in a row, so they stay in step across epochs, and a run may go on
        with another number of processes.

        Yields:
            The batch, and the position from which all processes go on after it.
        """
        round_: list[Planned] = []
        for planned in self._from(start):
            if len(round_) == world:
                yield round_[rank], planned.position
                round_ = []
            round_.append(planned)

    def _from(self, start: Position) -> Iterator[Planned]:
        epoch, skip = start
        while True:
            for number, faces in enumerate(self.epoch(epoch)):
                if number >= skip:
                    yield Planned(Position(epoch, number), faces)
            epoch, skip = epoch + 1, 0

    def epoch(self, epoch: int) -> Iterator[list[int]]:
        """All batches of an epoch, in order."""
        random = np.random.default_rng((self.seed, epoch))
        order = np.argsort(self.shards, kind="stable")
        bounds = np.searchsorted(self.shards[order], np.arange(self.shards.max() + 2))
        numbers = random.permutation(np.flatnonzero(np.diff(bounds)))
        waiting: dict[tuple[int, int], list[int]] = {}
        for first in range(0, len(numbers), self.window):
            mixed = np.concatenate([order[bounds[n] : bounds[n + 1]] for n in numbers[first : first + self.window]])
            for face in random.permutation(mixed).tolist():
                batch = waiting.setdefault(self.size(face), [])
                batch.append(face)
                if len(batch) == self.batch_size:
                    yield batch
                    waiting[self.size(face)] = []
        yield from (batch for _, batch in sorted(waiting.items()) if batch)
