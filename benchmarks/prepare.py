"""Measure photos per second and memory of `idgen prepare`, compared with a plain loop of detector and recogniser.

    python benchmarks/prepare.py lfw/ [--layout webdataset] [--count 960] [--memory 1000 10000]

All sides read the same files, on one core for each worker, with the same detector at the same size and the same
recogniser. The plain loop stores nothing; the time of `idgen prepare` includes writing shards, quality, people and the
report. The start of the workers is reported separately. The sides take turns, and the best round of each counts,
because other work on a shared machine disturbs it least. CPU time is that of all processes of a side.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np
import psutil
import torch
import tyro
from PIL import Image
from rich.console import Console
from rich.table import Table

from idgen.data.engines import LocalProcesses
from idgen.data.prepare import PrepareOptions, prepare
from idgen.data.sources import Layout, find_sources
from idgen.faces import DlibDetector, DlibEncoder, load_photo
from idgen.faces.detectors import dlib_weights

CONSOLE = Console(width=110)
SHARDS = 16  # so many that two workers end at about the same time
SMALL_SHARDS = ["--shard-size", "250"]  # so that both workers have some of the smallest set
COMMAND = [sys.executable, "-c", "from idgen.cli import main; main()", "prepare"]


def main(
    photos: tyro.conf.Positional[str],
    layout: Layout = "webdataset",
    count: int = 960,
    rounds: int = 2,
    memory: tuple[int, ...] = (),
) -> None:
    """Measure.

    Args:
        photos: Where photos are.
        layout: How they lie there; see `idgen prepare`.
        count: Photos to time; 0 for none.
        rounds: How often.
        memory: Sizes of sets whose memory is watched.
    """
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        if count:
            compare(copy_photos(photos, layout, count, Path(place) / "photos"), Path(place), rounds)
        if memory:
            watch([copy_photos(photos, layout, size, Path(place) / f"photos-{size}") for size in memory], Path(place))


def copy_photos(photos: str, layout: Layout, count: int, folder: Path) -> Path:
    """The first so many, one folder a person."""
    for source in islice(find_sources(photos, layout), count):
        if source.photo is not None:
            path = folder / source.name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(source.photo.read())
    return folder


def compare(photos: Path, place: Path, rounds: int) -> None:
    files = sorted(path for path in photos.rglob("*") if path.is_file())
    few = files[: len(files) // 16]  # dlib's own recogniser is slow
    start = seconds(lambda: prepare_with(2, files[0].parent, 1, place))
    sides: dict[str, tuple[int, Callable[[], Any]]] = {
        "plain loop, dlib's own calls": (len(few), lambda: dlib_loop(few)),
        "plain loop, dlib's networks": (len(files), lambda: plain_loop(files)),
        "idgen prepare, one worker": (len(files), lambda: prepare_with(1, photos, len(files), place)),
        "idgen prepare, two workers": (len(files), lambda: prepare_with(2, photos, len(files), place)),
    }
    rates, costs = dict.fromkeys(sides, 0.0), dict.fromkeys(sides, float("inf"))
    for _ in range(rounds):
        for name, (number, run) in sides.items():
            before = cpu_seconds()
            rates[name] = max(rates[name], number / seconds(run))
            costs[name] = min(costs[name], (cpu_seconds() - before) / number)
    plain, one = rates["plain loop, dlib's networks"], rates["idgen prepare, one worker"]
    table = Table("", "photos a second", "of the plain loop", "of one worker", "CPU time of a photo")
    for name, rate in rates.items():
        cells = (f"{rate:.1f}", f"{rate / plain:.2f} ×", f"{rate / one:.2f} ×", f"{costs[name] * 1000:.1f} ms")
        table.add_row(name, *cells)
    CONSOLE.print(table)
    CONSOLE.print(f"{len(files)} photos; starting two workers for the first time: {start:.1f} s")


def seconds(run: Callable[[], Any]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def cpu_seconds() -> float:
    """Of this process and all that it started, those that have ended too."""
    own = psutil.Process()
    return sum(sum(process.cpu_times()[:4]) for process in [own, *own.children(recursive=True)])


def plain_loop(files: list[Path]) -> list[np.ndarray]:
    """What one writes with the package's own detector and recogniser, photo by photo."""
    detector, encoder, found = DlibDetector(), DlibEncoder(), []
    for file in files:
        image = load_photo(file)
        for face in detector.detect(image):
            found.append(encoder.embed(encoder.crop(image, face.landmarks)[None])[0])
    return found


def dlib_loop(files: list[Path]) -> list[np.ndarray]:
    """What one writes with dlib alone."""
    import dlib

    parts = cast(Any, dlib)
    detector, found = parts.get_frontal_face_detector(), []
    predictor = parts.shape_predictor(str(dlib_weights("shape_predictor_5_face_landmarks.dat")))
    recogniser = parts.face_recognition_model_v1(str(dlib_weights("dlib_face_recognition_resnet_model_v1.dat")))
    ours = DlibDetector()
    for file in files:
        image = Image.fromarray(load_photo(file))
        scale = min(3.0, ours.working_side / max(image.size))
        pixels = np.asarray(image.resize((round(image.width * scale), round(image.height * scale))))
        for box in detector.run(pixels, 0, ours.score_threshold)[0]:
            found.append(np.array(recogniser.compute_face_descriptor(pixels, predictor(pixels, box))))
    return found


def prepare_with(workers: int, photos: Path, count: int, place: Path) -> None:
    with tempfile.TemporaryDirectory(dir=place) as output:
        options = PrepareOptions(photos=str(photos), output=output, shard_size=-(-count // SHARDS))
        prepare(options, LocalProcesses(workers))


def watch(folders: list[Path], place: Path) -> None:
    table = Table("photos", "the command", "its largest worker", "all processes together")
    for folder in folders:
        output = place / f"set-{folder.name}"
        peaks = peak_memory([*COMMAND, str(folder), "--output", str(output), "--workers", "2", *SMALL_SHARDS])
        count = sum(path.is_file() for path in folder.rglob("*"))
        table.add_row(f"{count:,}", *(f"{peak / 1e6:.0f} MB" for peak in peaks))
    CONSOLE.print(table)


def peak_memory(command: list[str]) -> tuple[float, float, float]:
    """Bytes: the most that a command held, that any of its processes held, and that all of them held together.

    Pages that processes share are counted in each of the first two, and once in the last.
    """
    own = largest = together = 0.0
    with subprocess.Popen(command, stdout=subprocess.DEVNULL) as run:
        root = psutil.Process(run.pid)
        while run.poll() is None:
            try:
                own = max(own, root.memory_info().rss)
                parts = [process.memory_full_info() for process in root.children(recursive=True)]
                largest = max(largest, *(part.rss for part in parts), 0)
                together = max(together, root.memory_full_info().pss + sum(part.pss for part in parts))
            except psutil.Error:  # one has just ended
                continue
            time.sleep(1)
    if run.returncode:
        raise SystemExit(f"{command} ended with {run.returncode}")
    return own, largest, together


if __name__ == "__main__":
    tyro.cli(main)
