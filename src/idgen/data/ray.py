"""Ray Data as an engine: how a set is prepared on a cluster."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from .. import errors
from ..errors import IdgenError, MissingDependencyError
from .engines import Task, Worker

WINDOW = 16
"""Shards a worker that are planned at a time: Ray takes a list, and the plan of a large set is not held in memory."""


@dataclass(frozen=True)
class RayData:
    """`read → map_batches with a pool of actors → write`; a batch is one shard, which its actor writes.

    The output must be a place that all nodes see.

    Args:
        workers: Actors; each takes one CPU. Leave at least one CPU of the cluster to the reading stage: without any,
            Ray waits for ever.
        address: "auto" or "ray://…" of a running cluster; None starts one here.
        gpus: GPUs an actor takes; a fraction shares one.
    """

    workers: int
    address: str | None = None
    gpus: float = 0.0

    def run(self, tasks: Iterable[Task], worker: Worker) -> Iterator[str]:
        try:
            import ray
            from ray.data import ActorPoolStrategy
        except ImportError as error:
            raise MissingDependencyError("This engine needs Ray: pip install 'idgen-diffusers[data,ray]'") from error

        started = not ray.is_initialized()
        if started:
            local: dict[str, Any] = {} if self.address else {"num_cpus": self.workers + 2, "include_dashboard": False}
            ray.init(address=self.address or "local", log_to_driver=False, **local)
        try:
            tasks = iter(tasks)
            while window := [{"task": task} for task in itertools.islice(tasks, WINDOW * self.workers)]:
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
        finally:
            if started:
                ray.shutdown()


class _Actor:
    def __init__(self, worker: Worker) -> None:
        self.worker = worker

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """Our errors come back as data: Ray would wrap them into its own, and print where they came from."""
        (task,) = batch["task"]
        try:
            return {"name": [self.worker(task)], "error": [""]}
        except IdgenError as error:
            return {"name": [str(error)], "error": [type(error).__name__]}
