"""`--dry_run`: what a run needs, measured by a few updates."""

from __future__ import annotations

import resource
import sys
import time

import torch
from rich.table import Table

from ..terminal import console
from .loop import Loop

DOLLARS = 2
"""Price of a GPU hour in the printed cost; clouds ask for 1 to 4."""


def dry_run(loop: Loop, updates: int = 3) -> dict[str, float]:
    """Measure what a run needs by a few updates. The weights are restored, and nothing is written.

    Returns:
        `parameters` and `trained`, numbers of weights; `gigabytes`, the peak memory of the device or the process;
        `seconds` per update, without the first one, which warms up; and `hours`, the duration of the whole run.
    """
    kept = [weight.detach().clone() for weight in loop.parameters]
    position = loop.batches.state_dict()
    stream = iter(loop.batches)
    seconds = [loop.update(stream)["seconds"] for _ in range(1 + updates)][1:]
    with torch.no_grad():
        for weight, before in zip(loop.parameters, kept, strict=True):
            weight.copy_(before)
    loop.batches.load_state_dict(position)
    components = loop.trained.base.pipeline.components.values()
    networks = [part for part in components if isinstance(part, torch.nn.Module)]
    frozen = sum(weight.numel() for network in networks for weight in network.parameters())
    trained = sum(weight.numel() for weight in loop.parameters)
    each = sum(seconds) / len(seconds)
    found = {
        "parameters": float(frozen + trained),
        "trained": float(trained),
        "gigabytes": _peak_memory(loop.accelerator.device) / 2**30,
        "seconds": each,
        "hours": each * loop.config.max_train_steps / 3600,
    }
    _show(loop, found)
    return found


def seconds_per_update(loop: Loop) -> float:
    """Measure a pass with its gradient, without an update: the run afterwards is the same as without it."""
    position = loop.batches.state_dict()
    batch = next(iter(loop.batches)).to(loop.accelerator.device)
    loop.batches.load_state_dict(position)
    seconds = []
    for _ in range(2):  # the first one warms up
        start = time.perf_counter()
        with loop.trained, loop.accelerator.autocast():
            random = torch.Generator().manual_seed(0)
            torch.autograd.grad(loop.trained(batch, random).total, loop.parameters, allow_unused=True)
        seconds.append(time.perf_counter() - start)
    return seconds[-1] * loop.config.gradient_accumulation_steps


def _peak_memory(device: torch.device) -> float:
    """The peak memory so far, in bytes."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _show(loop: Loop, found: dict[str, float]) -> None:
    config = loop.config
    samples = config.train_batch_size * config.gradient_accumulation_steps * loop.accelerator.num_processes
    table = Table("dry run", "", show_header=True)
    table.add_row(
        "parameters", f"{found['parameters'] / 1e6:.1f} million, {found['trained'] / 1e6:.1f} of them trained"
    )
    device = loop.accelerator.device
    table.add_row("peak memory so far", f"{found['gigabytes']:.1f} GiB on {device}")
    table.add_row("an update", f"{found['seconds']:.2g} s for {samples} samples")
    table.add_row(f"{config.max_train_steps:,} updates", f"{duration(found['hours'] * 3600)}, without validation")
    if device.type == "cuda":
        hours = found["hours"] * loop.accelerator.num_processes
        table.add_row("cost", f"{hours:.1f} GPU hours; {hours * DOLLARS:.0f} USD at {DOLLARS} USD a GPU hour")
    console.print(table)


def duration(seconds: float) -> str:
    """A duration in the unit that makes it easy to read."""
    for unit, length, limit in (("s", 1, 120), ("minutes", 60, 7200), ("hours", 3600, 48 * 3600)):
        if seconds < limit:
            return (
                f"{seconds / length:.1f} {unit}"
                if length > 1 and seconds < 10 * length
                else f"{seconds / length:.0f} {unit}"
            )
    return f"{seconds / 86400:.1f} days"
