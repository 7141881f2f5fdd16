"""Pictures per second and waiting times of the demo's API: python benchmarks/serving.py [--help]

Callers of the same server ask for one picture after the other, each of a person of their own. Requests that wait share
a call of the pipeline, up to the batch size; with a batch size of 1 they take turns. Processor time, of server and
callers together, says more than pictures per second where other work runs.
"""

from __future__ import annotations

import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import gradio_client
import numpy as np
import tyro
from rich.console import Console
from rich.table import Table

from idgen import Identity
from idgen.demo import build_demo
from idgen.faces import DlibEncoder
from idgen.provenance.options import MarkOptions
from idgen.tiny import load_tiny


def callers(url: str, count: int, folder: Path) -> list[Any]:
    """Clients with a person each."""
    found = []
    for i in range(count):
        file = folder / f"{i}.safetensors"
        Identity.random(DlibEncoder.name, DlibEncoder.dim, seed=i).save(file)
        client = gradio_client.Client(url, verbose=False, download_files=False)
        client.predict(gradio_client.handle_file(str(file)), "Person", api_name="/load_identity")
        found.append(client)
    return found


def ask(client: Any, pictures: int, steps: int, seconds: list[float], start: threading.Barrier) -> None:
    """Ask for pictures one after the other, and note how long each takes."""
    start.wait()
    for seed in range(pictures):
        began = time.perf_counter()
        client.predict("Person", steps=steps, seed=seed, api_name="/generate")
        seconds.append(time.perf_counter() - began)


def main(
    clients: tuple[int, ...] = (1, 8, 64),
    batch_size: tuple[int, ...] = (1, 4, 16),
    pictures: int = 2,
    steps: int = 20,
) -> None:
    """Print one table.

    Args:
        clients: Numbers of callers at a time.
        batch_size: Batch sizes of the server, the reference first.
        pictures: Pictures that each caller asks for.
        steps: Denoising steps of a picture.
    """
    table = Table(title=f"Built-in model, {steps} steps, {pictures} pictures for each caller")
    for column in (
        "callers",
        "batch size",
        "pictures/s",
        "ratio",
        "median wait, s",
        "95 % wait, s",
        "processor s/picture",
    ):
        table.add_column(column, justify="right")
    rates: dict[tuple[int, int], float] = {}
    for size in batch_size:
        demo: Any = build_demo(load_tiny(), marks=MarkOptions(watermark=False), batch_size=size)
        _, url, _ = demo.launch(prevent_thread_lock=True, quiet=True)
        with tempfile.TemporaryDirectory() as folder:
            several = callers(url, max(clients), Path(folder))
            ask(several[0], 1, steps, [], threading.Barrier(1))  # warms up
            for count in clients:
                seconds: list[float] = []
                start = threading.Barrier(count + 1)
                threads = [
                    threading.Thread(target=ask, args=(each, pictures, steps, seconds, start))
                    for each in several[:count]
                ]
                for thread in threads:
                    thread.start()
                start.wait()
                began, worked = time.perf_counter(), time.process_time()
                for thread in threads:
                    thread.join()
                rates[count, size] = len(seconds) / (time.perf_counter() - began)
                table.add_row(
                    str(count),
                    str(size),
                    f"{rates[count, size]:.2f}",
                    f"{rates[count, size] / rates[count, batch_size[0]]:.2f}",
                    f"{statistics.median(seconds):.1f}",
                    f"{np.quantile(seconds, 0.95):.1f}",
                    f"{(time.process_time() - worked) / len(seconds):.2f}",
                )
        demo.close()
    Console(width=100).print(table)


if __name__ == "__main__":
    tyro.cli(main)
