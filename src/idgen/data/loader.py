"""`PairedLoader`: the samples of one process in batches. It can stop anywhere and continue exactly there.

`BatchPlan` assigns faces to batches as a function of the seed alone, so every process computes the same plan.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from torch.utils.data import DataLoader

from ..errors import DataError
from .dataset import PairedIdentityDataset
from .engines import worker_context
from .sample import Sample


class Position(NamedTuple):
    """A position in the endless stream of batches.

    Attributes:
        epoch: Number of the epoch, from 0.
        batch: Number of the batch in the epoch, from 0.
    """

    epoch: int
    batch: int


class Planned(NamedTuple):
    """A planned batch.

    Attributes:
        position: Position of the batch.
        faces: Numbers of its faces.
    """

    position: Position
    faces: list[int]


@dataclass(frozen=True, eq=False)
class BatchPlan:
    """The order of an epoch: shards are shuffled, the faces of a few shards at a time are mixed, and grouped by size.

    Each face is in exactly one batch of an epoch. Incomplete batches come last.

    Attributes:
        shards: (faces,), the shard of each face.
        size: Face → height and width of its picture.
        batch_size: Faces per batch.
        seed: Seed of the order.
        window: Number of shards that are mixed. More shards mix better, fewer are read more sequentially.

    Raises:
        DataError: There are no faces, or a number is not positive.
    """

    shards: np.ndarray
    size: Callable[[int], tuple[int, int]]
    batch_size: int
    seed: int = 0
    window: int = 8

    def __post_init__(self) -> None:
        if not len(self.shards) or self.batch_size < 1 or self.window < 1:
            raise DataError(
                f"batch_size, window and the number of faces must be >= 1, got {self.batch_size}, {self.window} and "
                f"{len(self.shards)}."
            )

    def batches(self, start: Position, rank: int = 0, world: int = 1) -> Iterator[tuple[Planned, Position]]:
        """The endless batches of one process from a position on.

        Each process takes one of every `world` consecutive batches, so all processes stay in step across epochs, and a
        run can continue with another number of processes.

        Yields:
            The batch, and the position from which all processes continue after it.
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


class PairedLoader:
    """Endless lists of samples.

    Args:
        dataset: Dataset that is read.
        batch_size: Samples per batch of one process.
        rank: Number of this process.
        world: Number of processes on all nodes.
        workers: Processes that read and decode photos.
        window: Number of shards that are mixed; see `BatchPlan`.

    Example:
        >>> loader = PairedLoader(dataset, 8, rank=accelerator.process_index, world=accelerator.num_processes)
        >>> samples = next(iter(loader))
        >>> state = loader.state_dict()  # the same samples follow after load_state_dict(state)
    """

    def __init__(
        self,
        dataset: PairedIdentityDataset,
        batch_size: int,
        *,
        rank: int = 0,
        world: int = 1,
        workers: int = 0,
        window: int = 8,
    ) -> None:
        self.dataset, self.rank, self.world, self.workers = dataset, rank, world, workers
        self.plan = BatchPlan(dataset.shards_of_items, dataset.size, batch_size, dataset.seed, window)
        self.position, self.number = Position(0, 0), 0

    def __iter__(self) -> Iterator[list[Sample]]:
        """Continue from `position`. Workers read ahead; the position is that of the last batch that was returned,
        and `number` counts the batches that were returned in all epochs."""
        ahead: deque[Position] = deque()

        def places() -> Iterator[list[tuple[int, int, int]]]:
            planned_batches = self.plan.batches(self.position, self.rank, self.world)
            for number, (planned, after) in enumerate(planned_batches, self.number):
                ahead.append(after)
                yield [(planned.position.epoch, face, number) for face in planned.faces]

        loader = DataLoader(
            self.dataset,
            batch_sampler=_Endless(places()),  # pyright: ignore[reportArgumentType]
            num_workers=self.workers,
            collate_fn=list,
            multiprocessing_context=worker_context() if self.workers else None,
        )
        for samples in loader:
            self.position = ahead.popleft()
            self.number += 1
            yield samples

    def state_dict(self) -> dict[str, int]:
        """The number of batches so far, and the epoch and batch from which all processes continue."""
        return {"number": self.number, **self.position._asdict()}

    def load_state_dict(self, state: Mapping[str, int]) -> None:
        """Continue from a state, with any number of processes."""
        self.position, self.number = Position(state["epoch"], state["batch"]), state["number"]


class _Endless:
    """A batch sampler for DataLoader over an iterator that is used once."""

    def __init__(self, places: Iterator[list[tuple[int, int, int]]]) -> None:
        self.places = places

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        return self.places
