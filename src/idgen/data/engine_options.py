"""Options of commands that share their work among processes: which engine, and of how many workers."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from ..errors import IdgenError

if TYPE_CHECKING:
    from .engines import Engine

READ = {"inprocess": (), "local": ("workers",), "ray": ("workers", "address", "gpus")}
"""Engine → the other options that it reads."""


@dataclass(frozen=True, kw_only=True)
class EngineOptions:
    """Which processes do the work. Every engine writes the same files.

    Attributes:
        engine: "inprocess": this process; "local": processes on this machine; "ray": Ray Data, here or on a cluster.
        workers: Number of processes or actors; 0 means the number of cores. Each opens its own networks.
        address: Address of a running Ray cluster ("auto" finds it); by default one is started on this machine. Its
            nodes must share the output folder.
        gpus: GPUs of each actor of Ray; a fraction shares a GPU.
    """

    engine: Literal["inprocess", "local", "ray"] = "inprocess"
    workers: int = 0
    address: str | None = None
    gpus: float = 0.0

    def __post_init__(self) -> None:
        given = {"workers": self.workers, "address": self.address, "gpus": self.gpus}
        for name, value in given.items():
            if value and name not in READ[self.engine]:
                raise IdgenError(f"--{name} {value} has no effect with --engine {self.engine}: leave it out.")
        if self.workers < 0 or self.gpus < 0:
            raise IdgenError(f"--workers and --gpus must be at least 0, got {self.workers} and {self.gpus:g}.")

    @contextmanager
    def open(self) -> Iterator[Engine]:
        """The engine. Ray is started once, and stopped at the end."""
        from .engines import InProcess, LocalProcesses, RayData

        workers = self.workers or os.cpu_count() or 1
        if self.engine == "ray":
            ray = RayData(workers, self.address, self.gpus)
            with ray.started():
                yield ray
        else:
            yield LocalProcesses(workers) if self.engine == "local" else InProcess()
