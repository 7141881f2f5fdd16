"""Where shards are worked on: in this process, in local processes, or on a Ray cluster."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import DataError
from ..faces import FaceAnalyzer
from .shard import InputShard, prepare_shard

ATTEMPTS = 3
"""A shard whose worker is killed this often is not tried again."""


@dataclass
class ShardWorker:
    """What every worker does; the networks are opened at the first shard, once in each worker.

    Attributes:
        output: Folder or URL of the set.
        make_analyzer: Called in the worker; `functools.partial(FaceAnalyzer.for_encoder, name)`, say.
        min_face: See `prepare_shard`.
    """

    output: str
    make_analyzer: Callable[[], FaceAnalyzer]
    min_face: float
    _analyzer: FaceAnalyzer | None = field(default=None, init=False)

    def __call__(self, shard: InputShard) -> str:
        self._analyzer = self._analyzer or self.make_analyzer()
        return prepare_shard(shard, self.output, self._analyzer, self.min_face)


class Engine(Protocol):
    """Runs a worker over shards, in any order; yields the name of each that is finished."""

    def run(self, shards: Iterable[InputShard], worker: ShardWorker) -> Iterator[str]: ...


class InProcess:
    """One after the other."""

    def run(self, shards: Iterable[InputShard], worker: ShardWorker) -> Iterator[str]:
        yield from map(worker, shards)


@dataclass(frozen=True)
class LocalProcesses:
    """Processes on this machine. If one is killed, the shards that were under way are begun again.

    Args:
        workers: How many.
    """

    workers: int

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise DataError(f"At least one worker is needed, not {self.workers}.")

    def run(self, shards: Iterable[InputShard], worker: ShardWorker) -> Iterator[str]:
        waiting = iter(shards)
        again: list[tuple[InputShard, int]] = []
        while True:
            running: dict[Future[str], tuple[InputShard, int]] = {}
            # spawn: a fork of a process that runs torch's threads can hang
            context = multiprocessing.get_context("spawn")
            with ProcessPoolExecutor(self.workers, context, _start, (worker,)) as pool:
                try:
                    yield from self._drain(pool, waiting, again, running)
                    return
                except BrokenProcessPool:
                    again = [(shard, attempt + 1) for shard, attempt in running.values()]
            worst = [shard.name for shard, attempt in again if attempt >= ATTEMPTS]
            if worst:
                raise DataError(
                    f"Workers were killed {ATTEMPTS} times over the shards {worst}; memory ran out, it may be. "
                    "Use fewer workers and run the same command again."
                )

    def _drain(
        self,
        pool: ProcessPoolExecutor,
        waiting: Iterator[InputShard],
        again: list[tuple[InputShard, int]],
        running: dict[Future[str], tuple[InputShard, int]],
    ) -> Iterator[str]:
        """Keeps two shards a worker under way, so that the plan is never held in memory."""
        todo = list(again)
        while True:
            while len(running) < 2 * self.workers:
                task = todo.pop() if todo else next(((shard, 0) for shard in waiting), None)
                if task is None:
                    break
                try:
                    running[pool.submit(_work, task[0])] = task
                except BrokenProcessPool:
                    todo.append(task)
                    running.update((Future(), task) for task in todo)
                    raise
            if not running:
                return
            done, _ = wait(running, return_when=FIRST_COMPLETED)
            broken = next(
                (error for future in done if isinstance(error := future.exception(), BrokenProcessPool)), None
            )
            if broken is not None:
                running.update((Future(), task) for task in todo)
                raise broken
            for future in done:
                del running[future]
                yield future.result()


_worker: ShardWorker


def _start(worker: ShardWorker) -> None:
    global _worker
    _worker = worker


def _work(shard: InputShard) -> str:
    return _worker(shard)
