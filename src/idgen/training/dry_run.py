"""What a run would need, measured before it starts."""

from __future__ import annotations

import resource
import sys
from typing import Any

import torch
from rich.table import Table

from ..terminal import console
from .loop import Loop


def dry_run(loop: Loop, updates: int = 3) -> dict[str, float]:
    """Time a few updates and say what the run needs; the weights stay what they were, and nothing is written.

    Returns:
        `parameters`, `trained`, `gigabytes` (the largest so far, of the device or the process), `seconds` an update
        (the first, which warms up, does not count) and `hours` for the whole run.
    """
    kept = [weight.detach().clone() for weight in loop.parameters]
    position = loop.batches.state_dict()
    stream = iter(loop.batches)
    seconds = [loop.update(stream)["seconds"] for _ in range(1 + updates)][1:]
    with torch.no_grad():
        for weight, before in zip(loop.parameters, kept, strict=True):
            weight.copy_(before)
    loop.batches.load_state_dict(position)
    step: Any = loop.accelerator.unwrap_model(loop.step)
    networks = [part for part in step.base.pipeline.components.values() if isinstance(part, torch.nn.Module)]
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


def _peak_memory(device: torch.device) -> float:
    """Bytes, the most that were held at once so far."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def _show(loop: Loop, found: dict[str, float]) -> None:
    config = loop.config
    samples = config.train_batch_size * config.gradient_accumulation_steps * loop.accelerator.num_processes
    table = Table("dry run", "", show_header=True)
    table.add_row(
        "parameters", f"{found['parameters'] / 1e6:.1f} million, of which {found['trained'] / 1e6:.1f} learn"
    )
    table.add_row("largest memory so far", f"{found['gigabytes']:.2f} GiB on {loop.accelerator.device}")
    table.add_row("an update", f"{found['seconds']:.2f} s for {samples} samples")
    table.add_row(f"{config.max_train_steps} updates", f"{found['hours']:.1f} hours")
    console.print(table)
