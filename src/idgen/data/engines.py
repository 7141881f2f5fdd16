"""Engines that do tasks, such as shards or pictures: this process, local processes, or Ray Data."""

from __future__ import annotations

import itertools
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator, Sized
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.context import BaseContext
from threading import Thread
from typing import Any, Protocol, TypeAlias

import torch

from .. import errors
from ..errors import DataError, IdgenError, MissingDependencyError

ATTEMPTS = 3
"""A task whose worker was killed this many times is not tried again."""

RAY_WINDOW = 16
"""Tasks per worker that are planned at a time: Ray takes a list, and the plan of a large set must not fill memory."""


class Task(Protocol):
    """A piece of work with a unique name."""

    @property
    def name(self) -> str: ...


Worker: TypeAlias = Callable[[Any], str]
"""Does a task and returns its name. It is pickled for other processes, and opens its networks at the first task."""


def worker_context() -> BaseContext:
    """Start method of worker processes: forked from a server process that has only imported the package.

    A fork of a process with torch's threads can hang, and importing the package takes each worker seconds.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["idgen.data.shard", "idgen.data.dataset"])
    return context


@contextmanager
def one_thread() -> Iterator[None]:
    """Use one thread of torch: sums are the same on every machine, and workers do not compete for cores."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


class Engine(Protocol):
    """Runs a worker over tasks in any order, and yields the name of each finished task."""

    def run(self, tasks: Iterable[Task], worker: Worker) -> Iterator[str]: ...


class InProcess:
    """Runs all tasks one after the other in this process."""

    def run(self, tasks: Iterable[Task], worker: Worker) -> Iterator[str]:
        yield from map(worker, tasks)


@dataclass(frozen=True)
class LocalProcesses:
    """Processes on this machine, of one thread each. If one is killed, the tasks in progress are started again.

    Args:
        workers: Number of processes.
    """

    workers: int

    def __post_init__(self) -> None:
        if self.workers < 1:
            raise DataError(f"workers must be >= 1, got {self.workers}.")

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
                    f"Workers were killed {ATTEMPTS} times at {', '.join(worst)}, probably because memory ran out. "
                    "Use fewer workers and run the same command again."
                )

    def _drain(
        self,
        pool: ProcessPoolExecutor,
        waiting: Iterator[Task],
        again: list[tuple[Task, int]],
        running: dict[Future[str], tuple[Task, int]],
    ) -> Iterator[str]:
        """Keep two tasks per worker in progress, so that the plan is never in memory as a whole."""
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
    torch.set_num_threads(1)  # workers do not compete for cores
    Thread(target=_end_with_parent, daemon=True).start()


def _end_with_parent() -> None:
    """End a worker whose parent was killed; it would write into the shards of the next run."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def _work(task: Task) -> str:
    return _worker(task)


@dataclass(frozen=True)
class RayData:
    """`read → map_batches with a pool of actors → write`; a batch is one task, whose files its actor writes.

    All nodes must be able to write to the output.

    Args:
        workers: Number of actors; each takes one CPU. Leave at least one CPU of the cluster for the reading stage:
            otherwise Ray waits forever.
        address: "auto" or "ray://…" for a running cluster; None starts one on this machine.
        gpus: GPUs per actor; a fraction shares a GPU.
    """

    workers: int
    address: str | None = None
    gpus: float = 0.0

    def run(self, tasks: Iterable[Task], worker: Worker) -> Iterator[str]:
        """See `Engine`. Tasks in a list are given to Ray as a whole: actors open their networks once."""
        with self.started():
            import ray
            from ray.data import ActorPoolStrategy

            size = len(tasks) if isinstance(tasks, Sized) else RAY_WINDOW * self.workers
            tasks = iter(tasks)
            while window := [{"task": task} for task in itertools.islice(tasks, size)]:
                data = ray.data.from_items(window).map_batches(
                    _Actor,
                    fn_constructor_args=(worker,),
                    batch_size=1,
                    num_cpus=1,
                    num_gpus=self.gpus,
                    compute=ActorPoolStrategy(size=self.workers),
                )
                for row in data.iter_rows():
                    if row["error"]:
                        raise getattr(errors, row["error"])(row["name"])
                    yield row["name"]

    @contextmanager
    def started(self) -> Iterator[None]:
        """Start Ray, unless it runs, and stop it at the end."""
        try:
            import ray
            import ray.data
        except ImportError as error:
            raise MissingDependencyError("This engine needs Ray: pip install 'idgen-diffusers[data,ray]'") from error

        if ray.is_initialized():
            yield
            return
        local: dict[str, Any] = {} if self.address else {"num_cpus": self.workers + 2, "include_dashboard": False}
        ray.init(address=self.address or "local", log_to_driver=False, **local)
        try:
            yield
        finally:
            ray.shutdown()


class _Actor:
    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Errors of ours are returned as data: Ray would wrap them and print their traceback."""
        (task,) = batch["task"]
        try:
            return {"name": [self.worker(task)], "error": [""]}
        except IdgenError as error:
            return {"name": [str(error)], "error": [type(error).__name__]}
