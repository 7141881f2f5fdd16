"""`Turns`: requests take turns at the pipeline, and those that wait share a call where they can."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from .sessions import StoppedError

T = TypeVar("T")


@dataclass(eq=False)
class Job(Generic[T]):
    """A request that waits for its images.

    Attributes:
        images: Number of images.
        shares: Jobs with equal values can share a call; None for a job that cannot.
        stop: Set when the visitor stops the request.
        outcome: Its result or its error.
    """

    images: int
    shares: Hashable | None
    stop: threading.Event
    outcome: Future[T] = field(default_factory=Future)


J = TypeVar("J", bound=Job)


class Turns(Generic[J]):
    """Runs jobs one call at a time, in the order in which they came.

    The thread whose turn it is runs the oldest job together with those that wait and can share its call. If a shared
    call fails, its jobs run one by one, so that nobody sees the error of another request.

    Args:
        call: Runs jobs in one call; returns the result of each.
        most: Maximum of images in a shared call.
    """

    def __init__(self, call: Callable[[Sequence[J]], Sequence[object]], most: int) -> None:
        self.call, self.most = call, most
        self._waiting: list[J] = []
        self._list = threading.Lock()
        self.turn = threading.Lock()
        """Held during a call."""

    def run(self, job: J) -> object:
        """Wait for a turn; returns the result, or raises the error of the job.

        Raises:
            StoppedError: `stop` was set.
        """
        with self._list:
            self._waiting.append(job)
        with self.turn:
            while not job.outcome.done():
                self._run(self._next())
        return job.outcome.result()

    def _next(self) -> list[J]:
        """The oldest job and those that share its call; they no longer wait."""
        with self._list:
            first, *others = self._waiting
            chosen, images = [first], first.images
            for job in others:
                if job.shares is not None and job.shares == first.shares and images + job.images <= self.most:
                    chosen.append(job)
                    images += job.images
            self._waiting = [job for job in others if job not in chosen]
        return chosen

    def _run(self, jobs: Sequence[J]) -> None:
        for job in jobs:
            if job.stop.is_set():
                job.outcome.set_exception(StoppedError("Stopped."))
        jobs = [job for job in jobs if not job.outcome.done()]
        try:
            results = self.call(jobs) if jobs else ()
        except Exception as error:
            if len(jobs) > 1:
                for job in jobs:
                    self._run([job])
            else:
                jobs[0].outcome.set_exception(error)
        else:
            for job, result in zip(jobs, results, strict=True):
                job.outcome.set_result(result)
