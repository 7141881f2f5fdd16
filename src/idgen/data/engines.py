"""Where shards are worked on: in this process, in local processes, or on a Ray cluster."""

from __future__ import annotations

import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from threading import Thread
from typing import Any, Protocol, TypeAlias

import torch

from ..errors import DataError
from .processes import worker_context

ATTEMPTS = 3
"""A shard whose worker is killed this often is not tried again."""


class Task(Protocol):
    """A piece of work, told from the others by its name."""

    @property
    def name(self) -> str: ...


Worker: TypeAlias = Callable[[Any], str]
"""Does a task and returns its name. It is sent to other processes, and opens what is costly at its first task."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Sums come out the same whoever runs them, and workers do not fight for cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Engine(Protocol):
    """Runs a worker over tasks, in any order; yields the name of each that is finished."""

    def run(self, tasks: Iterable[Task], worker: Worker) -> Iterator[str]: ...


class InProcess:
    """One after the other."""

    def run(self, tasks: Iterable[Task], worker: Worker) -> Iterator[str]:
        yield from map(worker, tasks)


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

    def run(self, tasks: Iterable[Task], worker: Worker) -> Iterator[str]:
        waiting = iter(tasks)
        again: list[tuple[Task, int]] = []
        while True:
            running: dict[Future[str], tuple[Task, int]] = {}
            with ProcessPoolExecutor(self.workers, worker_context(), _start, (worker,)) as pool:
                try:
                    yield from self._drain(pool, waiting, again, running)
                    return
                except BrokenProcessPool:
                    again = [(task, attempt + 1) for task, attempt in running.values()]
                except BaseException:
                    pool.shutdown(cancel_futures=True)
                    raise
            worst = [task.name for task, attempt in again if attempt >= ATTEMPTS]
            if worst:
                raise DataError(
                    f"Workers were killed {ATTEMPTS} times over the shards {worst}; memory ran out, it may be. "
                    "Use fewer workers and run the same command again."
                )

    def _drain(
        self,
        pool: ProcessPoolExecutor,
        waiting: Iterator[Task],
        again: list[tuple[Task, int]],
        running: dict[Future[str], tuple[Task, int]],
    ) -> Iterator[str]:
        """Keeps two shards a worker under way, so that the plan is never held in memory."""
        todo = list(again)
        while True:
            while len(running) < 2 * self.workers:
                task = todo.pop() if todo else next(((task, 0) for task in waiting), None)
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


_worker: Worker


def _start(worker: Worker) -> None:
    global _worker
    _worker = worker
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """Without this the workers of a run that was killed would live on, and write into the next run's shards."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(task: Task) -> str:
    return _worker(task)
