"""How time and memory grow with size, each as a row with its exponent.

    python benchmarks/sizes.py [--named 5000 10000 20000 40000]

Rows: the operations that an identity adds to a denoising step of SD1.5 with guidance, counted on meta tensors; the
step of `idgen prepare` over the whole set (people, splits, duplicates) with and without names, its bank, the draws of
1,024 negatives for 32 samples from a bank on disk, and the figures and intervals of `idgen evaluate` with one picture
of each person. Embeddings and scores are random. Each size has a process of its own. The exponent is the slope of the
least-squares line through the logarithms: 1 is proportional, 2 quadratic. Seconds are processor time; memory is what
the process needs above its start.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import tyro
from diffusers import UNet2DConditionModel
from networks import EMBEDDING_DIM, SD15, inputs, make_adapter, make_unet
from people import DIM, PHOTOS, finish, peak_memory, write_set
from rich.console import Console
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from idgen.data.bank import EMBEDDINGS, FOLDER, IdentityBank
from idgen.evaluation.measure import Measured, Row
from idgen.evaluation.summary import summarise

PROCESSES: Any = multiprocessing.get_context("forkserver")


SIDE = 512
OPERATIONS: dict[str, tuple[int, ...]] = {"tokens": (4, 16, 64, 256), "people": (1, 2, 3, 4), "pictures": (1, 2, 4, 8)}
"""What is varied in a denoising step → the sizes."""


BLOCK = 1 << 16
"""Embeddings that are written at once."""

DRAWS = 50


class Cost(NamedTuple):
    """Processor time in seconds, and memory in MB."""

    seconds: float
    megabytes: float


def prepared(faces: int, labelled: bool) -> tuple[Cost, float]:
    """The cost of the step over a whole set, and the seconds of its bank."""
    with tempfile.TemporaryDirectory() as output:
        names = write_set(Path(output), faces, labelled)
        assign, bank, before, peak = _alone(finish, (output, names))
    return Cost(assign, (peak - before) / 1e6), bank


def drawn(faces: int, hard: bool) -> float:
    """Milliseconds of a draw of negatives from a bank of so many faces, four of each person."""
    with tempfile.TemporaryDirectory() as folder:
        _write_bank(Path(folder, FOLDER), faces)
        return _alone(_draw, (folder, hard))


def _write_bank(folder: Path, faces: int) -> None:
    folder.mkdir()
    starts = np.arange(0, faces, PHOTOS)
    people = {"person": [str(start) for start in starts], "start": starts, "count": np.full(len(starts), PHOTOS)}
    pq.write_table(pa.table({**people, "split": ["train"] * len(starts)}), folder / "people.parquet")
    np.save(folder / "rows.npy", np.stack([np.zeros(faces, np.int64), np.arange(faces)], 1))
    random = np.random.default_rng(0)
    stored = np.lib.format.open_memmap(folder / EMBEDDINGS, "w+", np.float32, (faces, DIM))
    for start in range(0, faces, BLOCK):
        stored[start : start + BLOCK] = random.standard_normal((min(BLOCK, faces - start), DIM), np.float32)
    stored.flush()


def _draw(folder: str, hard: bool) -> float:
    bank = IdentityBank(folder, hard=hard)
    persons = torch.arange(32) * len(bank) // 32
    bank.draw(persons, 0)
    start = time.process_time()
    for number in range(1, DRAWS + 1):
        bank.draw(persons, number)
    return 1000 * (time.process_time() - start) / DRAWS


def evaluated(people: int) -> Cost:
    """The cost of the figures of so many people with a picture each."""
    return Cost(*_alone(_summarise, (people,)))


def _summarise(people: int) -> tuple[float, float]:
    random = np.random.default_rng(0)
    names = [f"person {i}" for i in range(people)]
    scores = random.normal(0, 0.1, (people, people)) + 0.5 * np.eye(people)
    rows = [
        Row(person=name, groups={}, prompt="", seed=0, file="", values={"sim_gt/random": float(scores[i, i])})
        for i, name in enumerate(names)
    ]
    measured = Measured(rows, names, names, np.eye(people, dtype=bool), {"random": scores})
    before, start = peak_memory(), time.process_time()
    summarise(measured)
    return time.process_time() - start, (peak_memory() - before) / 1e6


def _alone(work: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    with PROCESSES.Pool(1) as process:
        return process.apply(work, arguments)


@torch.no_grad()
def added(unet: UNet2DConditionModel, tokens: int = 16, people: int = 1, pictures: int = 1) -> float:
    """GFLOPs of a step with identities, less those of a step without."""
    call = inputs(unet, SIDE, pictures)
    with FlopCounterMode(display=False) as bare:
        unet(**call)
    adapter = make_adapter(unet, tokens)
    adapter.attach(unet)
    identities = [adapter.encode(torch.ones(1, EMBEDDING_DIM, device="meta")) for _ in range(people)]
    masks = [torch.zeros(SIDE, SIDE, device="meta") for _ in range(people)] if people > 1 else None
    with adapter.activate(identities, num_images=pictures, masks=masks), FlopCounterMode(display=False) as named:
        unet(**call)
    adapter.detach()
    return (named.get_total_flops() - bare.get_total_flops()) / 1e9


def exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """Of the power law cost ∝ size^exponent."""
    return float(np.polyfit(np.log(sizes), np.log(costs), 1)[0])


def main(
    named: tuple[int, ...] = (5_000, 10_000, 20_000, 40_000),
    unnamed: tuple[int, ...] = (2_000, 4_000, 8_000, 16_000),
    people: tuple[int, ...] = (50, 100, 200, 400),
    bank: tuple[int, ...] = (1_000, 10_000, 100_000, 1_000_000),
) -> None:
    """Measure and print; four sizes or more give an exponent.

    Args:
        named: Faces of sets with names.
        unnamed: Faces of sets without, where every face is compared with every other.
        people: People of an evaluation.
        bank: Faces of a bank that negatives are drawn from; a million take half a gigabyte of disk meanwhile.
    """
    PROCESSES.set_forkserver_preload(["people", "networks", "idgen.evaluation.summary", "torch.utils.flop_counter"])
    table = Table("what", "size", "seconds", "exponent", "MB", "exponent")

    def add(what: str, sizes: Sequence[int], seconds: Sequence[float], megabytes: Sequence[float] = ()) -> None:
        cells = [", ".join(f"{size:,}" for size in sizes)]
        for costs in (seconds, megabytes):
            shown = (
                (", ".join(f"{cost:.3g}" for cost in costs), f"{exponent(sizes, costs):.2f}") if costs else ("", "")
            )
            cells += shown
        table.add_row(what, *cells)

    for who, sizes in (("with names", named), ("without names", unnamed)):
        costs, banks = zip(*(prepared(faces, who == "with names") for faces in sizes), strict=True)
        add(f"people and duplicates of a set {who}, by faces", sizes, *map(list, zip(*costs, strict=True)))
        if who == "with names":
            add("bank, by faces", sizes, banks)
    for kind in ("random", "hard"):
        add(f"ms of a draw of {kind} negatives, by faces of the bank", bank, [drawn(n, kind == "hard") for n in bank])
    add("figures of an evaluation, by people", people, *map(list, zip(*map(evaluated, people), strict=True)))
    Console(width=150).print(table)
    unet = make_unet(SD15, torch.device("meta"), torch.float32)
    operations = Table("a step of SD1.5, 512 px, by", "size", "GFLOPs added", "exponent")
    for name, sizes in OPERATIONS.items():
        costs = [added(unet, **{name: size}) for size in sizes]
        shown = (", ".join(map(str, sizes)), ", ".join(f"{cost:.2f}" for cost in costs))
        operations.add_row(name, *shown, f"{exponent(sizes, costs):.2f}")
    Console(width=150).print(operations)


if __name__ == "__main__":
    tyro.cli(main)
