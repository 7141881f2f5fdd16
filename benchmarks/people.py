"""Measure CPU time and memory of the last step of `idgen prepare`: people, splits, duplicates and the bank.

    python benchmarks/people.py [--named 50000 200000] [--unnamed 5000 10000 20000]

Embeddings are random: people with four photos each, in shards without pictures. One face in ten is a stranger's, whom
nobody has named; in sets without labels all faces are. Each size has a process of its own.
"""

from __future__ import annotations

import multiprocessing
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import tyro
from rich.console import Console
from rich.table import Table

from idgen.data.assign import AssignOptions, assign_people
from idgen.data.bank import IdentityBank
from idgen.data.bank_writing import write_bank
from idgen.data.clustering import unit
from idgen.data.index import SCHEMA, write_index

CONSOLE = Console(width=110)
DIM, SHARD, PHOTOS = 128, 10_000, 4
OPTIONS = AssignOptions(shares={"test": 0.05, "validation": 0.05}, threshold=0.9)


def main(named: tuple[int, ...] = (50_000, 200_000), unnamed: tuple[int, ...] = (5_000, 10_000, 20_000)) -> None:
    """Measure.

    Args:
        named: Faces of sets with labels.
        unnamed: Faces of sets without.
    """
    table = Table("faces", "who", "people, splits, duplicates", "bank", "peak memory", "of it for the faces")
    for who, sizes in (("named", named), ("unnamed", unnamed)):
        for faces in sizes:
            with tempfile.TemporaryDirectory() as output:
                names = write_set(Path(output), faces, labelled=who == "named")
                with multiprocessing.get_context("spawn").Pool(1) as process:
                    assign, bank, before, peak = process.apply(finish, (output, names))
            cells = (
                f"{assign:.1f} s",
                f"{bank:.1f} s",
                f"{peak / 1e6:.0f} MB",
                f"{(peak - before) / faces:.0f} B each",
            )
            table.add_row(f"{faces:,}", who, *cells)
    CONSOLE.print(table)


def write_set(output: Path, faces: int, labelled: bool) -> list[str]:
    """Indexes with faces of random people."""
    random = np.random.default_rng(0)
    centres = unit(random.normal(size=(faces // PHOTOS, DIM)))
    names = []
    for number, start in enumerate(range(0, faces, SHARD)):
        rows = np.arange(start, min(start + SHARD, faces))
        people = rows // PHOTOS % len(centres)
        strangers = (rows % 10 == 9) | (not labelled)
        embeddings = centres[people] + random.normal(size=(len(rows), DIM)).astype(np.float32) * 0.02
        columns: dict[str, Any] = {
            "key": [f"{row:012d}" for row in rows],
            "face": [0] * len(rows),
            "label": [None if stranger else f"person {p}" for p, stranger in zip(people, strangers, strict=True)],
            "sha256": [random.bytes(32).hex() for _ in rows],
            "reference": [True] * len(rows),  # without a reference all faces of a person would be set aside
            "size": random.uniform(40, 200, len(rows)),
            "embedding": list(embeddings.astype(np.float32)),
            "thumbnail": list(random.integers(0, 256, (len(rows), 64)).astype(np.uint8)),
        }
        table = pa.table(
            [pa.array(columns[f.name], f.type) if f.name in columns else pa.nulls(len(rows), f.type) for f in SCHEMA],
            SCHEMA,
        )
        names.append(f"{number:06d}")
        write_index(str(output / f"{names[-1]}.parquet"), table)
    return names


def finish(output: str, names: list[str]) -> tuple[float, float, float, float]:
    """CPU seconds of the two steps, and peak memory before and after them, in bytes."""
    before, start = peak_memory(), time.process_time()
    assign_people(output, names, "random", OPTIONS)
    middle = time.process_time()
    write_bank(output, names, DIM)
    assert len(IdentityBank(output).people), "nothing was measured: the bank is empty"
    return middle - start, time.process_time() - middle, before, peak_memory()


def peak_memory() -> float:
    """Of this process alone: what `resource` tells begins with the peak of the process that started it. Linux only."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024.0


if __name__ == "__main__":
    tyro.cli(main)
