"""Print the tables of this machine, one after the other: python -m benchmarks [--help]

These are the benchmarks of speed, memory and operations that need no photos. Each runs in a process of its own, so
that its memory and its threads do not affect the next one. The order is that of their value, and a budget of minutes
ends the run where it is: on a GPU that is lent for ten minutes, `python -m benchmarks --minutes 10`.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import NamedTuple

import torch
import tyro


class Row(NamedTuple):
    """A benchmark and its arguments."""

    name: str
    arguments: tuple[str, ...] = ()

    @property
    def command(self) -> list[str]:
        return [sys.executable, str(Path(__file__).with_name(f"{self.name}.py")), *self.arguments]

    def __str__(self) -> str:
        return " ".join((self.name, *self.arguments))


GPU = (
    Row("inference", ("--model", "sd15", "--rounds", "3")),
    Row("inference", ("--model", "sdxl", "--rounds", "3")),
    Row("opening"),
    Row("training", ("--model", "sd15", "--rounds", "3")),
    Row("training", ("--model", "sdxl", "--rounds", "3")),
    Row("serving"),
    Row("control_interval"),
)
"""What only a GPU can fill, the most wanted first."""

CPU = (
    Row("libraries"),
    Row("memory"),
    Row("pulid"),
    Row("photomaker"),
    Row("tiny"),
    Row("opening"),
    Row("control_interval"),
    Row("branch", ("--side", "256")),
    Row("processes"),
    Row("inference", ("--batch", "1", "--rounds", "3", "--model", "sd15", "--side", "256")),
    Row("training", ("--stage", "1", "--rounds", "3")),
    Row("training", ("--stage", "2", "--rounds", "3")),
    Row("serving", ("--clients", "1", "8")),
    Row("people"),
    Row("sizes"),
)
"""In the order of the time that they take."""


def main(only: tuple[str, ...] = (), minutes: float | None = None, dry_run: bool = False) -> None:
    """Run the benchmarks.

    Args:
        only: Names of benchmarks; all if not given.
        minutes: Budget; a benchmark that is running when it ends is stopped.
        dry_run: Print the commands, and run nothing.
    """
    rows = [row for row in (GPU if torch.cuda.is_available() else CPU) if not only or row.name in only]
    unknown = {*only} - {row.name for row in (*GPU, *CPU)}
    if unknown:
        raise SystemExit(f"There are no benchmarks named {sorted(unknown)}.")
    end = time.monotonic() + 60 * minutes if minutes else float("inf")
    failed = []
    for row in rows:
        print(f"\n$ python -m benchmarks: {row}", flush=True)
        if not dry_run and (reason := run(row, end - time.monotonic())):
            failed.append(f"{row}: {reason}")
    if failed:
        raise SystemExit("\n".join(["Without a table:", *failed]))


def run(row: Row, seconds: float) -> str:
    """Run a benchmark; why it failed, or nothing."""
    if seconds <= 0:
        return "no time was left"
    try:
        done = subprocess.run(row.command, timeout=None if seconds == float("inf") else seconds)
    except subprocess.TimeoutExpired:
        return "the time was over"
    return f"exit status {done.returncode}" if done.returncode else ""


if __name__ == "__main__":
    tyro.cli(main, description=__doc__)
