"""How well a run uses several processes: python benchmarks/processes.py [--help]

Two processes with gloo on this machine, one core each, make updates of SD1.5 with a quarter of the channels, in turn
with the same updates whose gradients are not added up; and as many gradients are added up and nothing else. Then, on
paper, adapters of full size on GPUs: a ring sends 2 (n - 1) / n of the gradients' bytes, and no part of this is hidden
behind the backward pass.
"""

from __future__ import annotations

import os
import socket
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
import tyro
from networks import IP_TOKENS, SD15, SDXL, make_adapter, make_unet
from recipes import Shape, make_batch, make_pipeline
from rich.console import Console
from rich.table import Table
from torch import multiprocessing

from idgen.training.base import BaseModel
from idgen.training.config import LoopConfig
from idgen.training.distributed import make_accelerator
from training import Ours

UPDATES = {"SD1.5, 512 px, batch 4": (SD15, 4 / 36.6), "SDXL, 1024 px, batch 2": (SDXL, 2 / 6.33)}
"""Sizes, and seconds of an update on one H200 by `training.py`."""

LINKS = {"NVLink, 400 GB/s": 400e9, "PCIe 5, 50 GB/s": 50e9, "100 Gbit/s": 12.5e9}
"""Bytes per second from one GPU to the next."""


class Measured(NamedTuple):
    """Seconds of an update, of one whose gradients stay in their process, and of adding up alone; bytes of these."""

    update: float
    apart: float
    adding: float
    size: int


def together(rounds: int, batch: int) -> Measured:
    """What two processes need."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    answers: Any = multiprocessing.get_context("spawn").SimpleQueue()
    multiprocessing.spawn(_train, (port, rounds, batch, answers), nprocs=2)
    return answers.get()


def _train(rank: int, port: int, rounds: int, batch: int, answers: Any) -> None:
    torch.set_num_threads(1)
    told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "MASTER_ADDR": "localhost", "MASTER_PORT": port}
    os.environ |= {name: str(value) for name, value in told.items()} | {"ACCELERATE_USE_CPU": "true"}
    shape = Shape("sd15", 0.25, 256, batch, torch.float32, torch.device("cpu"))
    accelerator = make_accelerator(LoopConfig(), Path(tempfile.gettempdir()))
    base = BaseModel(make_pipeline(shape), shape.dtype, shape.device)
    ours = Ours(base, make_batch(shape, base)[0], accelerator, steps=1)
    gradients = torch.ones(sum(weight.numel() for weight in ours.adapter.parameters()))
    update = ours.denoise()

    def apart() -> None:
        with ours.loop.step.no_sync():
            update()

    acts = (update, apart, lambda: dist.all_reduce(gradients))
    times = [[_seconds(act) for act in acts] for _ in range(rounds + 1)][1:]  # the first round warms up
    if rank == 0:
        whole, alone, adding = (statistics.median(each) for each in zip(*times, strict=True))
        answers.put(Measured(whole, alone, adding, gradients.nbytes))


def _seconds(act: Callable[[], Any]) -> float:
    start = time.perf_counter()
    act()
    return time.perf_counter() - start


def on_paper(gpus: int) -> Table:
    """Share of the time that computes, by model and link."""
    table = Table("", "gradients", "an update alone", *LINKS, title=f"efficiency of {gpus} GPUs, on paper")
    for name, (config, seconds) in UPDATES.items():
        unet = make_unet(config, torch.device("meta"), torch.float32)
        size = 4 * sum(weight.numel() for weight in make_adapter(unet, IP_TOKENS).parameters())
        sent = 2 * (gpus - 1) / gpus * size
        shares = [f"{100 * seconds / (seconds + sent / link):.1f} %" for link in LINKS.values()]
        table.add_row(name, f"{size / 2**20:.0f} MiB", f"{1000 * seconds:.0f} ms", *shares)
    return table


def main(rounds: int = 10, batch: int = 2, gpus: int = 8) -> None:
    """Measure and print.

    Args:
        rounds: Updates after the one that warms up.
        batch: Samples of each process.
        gpus: GPUs on paper.
    """
    found = together(rounds, batch)
    table = Table("two processes", "seconds", title=f"gradients of {found.size / 2**20:.1f} MiB")
    table.add_row("an update", f"{found.update:.3f}")
    table.add_row("without adding up gradients", f"{found.apart:.3f}")
    table.add_row("adding up alone", f"{found.adding:.3f}")
    table.add_row("efficiency", f"{100 * found.apart / found.update:.1f} %")
    console = Console(width=120)
    console.print(table)
    console.print(on_paper(gpus))


if __name__ == "__main__":
    tyro.cli(main)
