"""`PairedLoader`: the samples of one process in batches, which can stop anywhere and go on exactly there."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import Any

import numpy as np
from torch.utils.data import DataLoader

from .dataset import PairedIdentityDataset, Sample
from .plan import BatchPlan, Position
from .processes import worker_context


class PairedLoader:
    """Streams lists of samples, without end.

    Args:
        dataset: What is read.
        batch_size: Samples in a batch of one process.
        rank: Number of this process …
        world: … of so many; all nodes count.
        workers: Processes that read and decode beside the training.
        window: Shards that are mixed; see `BatchPlan`.

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
        shards = np.asarray(dataset.bank.rows[:, 0])
        self.dataset, self.rank, self.world, self.workers = dataset, rank, world, workers
        self.plan = BatchPlan(shards, dataset.size, batch_size, dataset.seed, window)
        self.position = Position(0, 0)

    def __iter__(self) -> Iterator[list[Sample]]:
        """Go on from `position`. Workers run ahead; the position is that of the batch that was handed out last."""
        ahead: deque[Position] = deque()

        def places() -> Iterator[list[tuple[int, int]]]:
            for planned, after in self.plan.batches(self.position, self.rank, self.world):
                ahead.append(after)
                yield [(planned.position.epoch, face) for face in planned.faces]

        loader = DataLoader(
            self.dataset,
            batch_sampler=_Endless(places()),  # pyright: ignore[reportArgumentType]
            num_workers=self.workers,
            collate_fn=list,
            multiprocessing_context=worker_context() if self.workers else None,
        )
        for samples in loader:
            self.position = ahead.popleft()
            yield samples

    def state_dict(self) -> dict[str, Any]:
        """Epoch and batch from which all processes go on."""
        return self.position._asdict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go there, with any number of processes."""
        self.position = Position(**state)


class _Endless:
    """What DataLoader asks of a batch sampler, over an iterator that is used once."""

    def __init__(self, places: Iterator[list[tuple[int, int]]]) -> None:
        self.places = places

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        return self.places
