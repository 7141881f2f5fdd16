"""Pictures per second of examples/ray_serve.py by its number of replicas: python benchmarks/ray_serve.py [--help]

The example runs as a program of its own. Callers send a photo and wait for a picture, one after the other.
"""

from __future__ import annotations

import io
import os
import signal
import statistics
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import tyro
from PIL import Image
from rich.console import Console
from rich.table import Table
from skimage import data

EXAMPLE = Path(__file__).parents[1] / "examples" / "ray_serve.py"
STARTS_WITHIN = 300


def ask(url: str, photo: bytes, pictures: int) -> list[float]:
    """Ask for pictures one after the other; returns the seconds that each took."""
    seconds = []
    for seed in range(pictures):
        began = time.perf_counter()
        with urllib.request.urlopen(f"{url}&seed={seed}", photo) as answer:
            answer.read()
        seconds.append(time.perf_counter() - began)
    return seconds


@contextmanager
def serving(replicas: int, port: int) -> Iterator[str]:
    """Run the example; yields its address when it answers."""
    command = [sys.executable, str(EXAMPLE), "--replicas", str(replicas), "--port", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    address, until = f"http://127.0.0.1:{port}/", time.monotonic() + STARTS_WITHIN
    try:
        while not _is_ready(address) and time.monotonic() < until and server.poll() is None:
            time.sleep(1)
        yield address
    finally:
        server.send_signal(signal.SIGINT)
        server.wait(60)


def _is_ready(address: str) -> bool:
    """Whether the application has a route; its first request waits for the replicas."""
    try:
        return b'"/"' in urllib.request.urlopen(f"{address}-/routes").read()
    except OSError:
        return False


def main(
    replicas: tuple[int, ...] = (1, 2),
    clients: tuple[int, ...] = (1, 8),
    pictures: int = 4,
    steps: int = 20,
    port: int = 8765,
) -> None:
    """Print one table.

    Args:
        replicas: Numbers of replicas, the reference first. They share the cores of this machine.
        clients: Numbers of callers at a time.
        pictures: Pictures that each caller asks for.
        steps: Denoising steps of a picture.
        port: Port of the server.
    """
    file = io.BytesIO()
    Image.fromarray(data.astronaut()).save(file, "JPEG")
    table = Table(title=f"Built-in model, {steps} steps, {pictures} pictures for each caller, {os.cpu_count()} cores")
    for column in ("replicas", "callers", "pictures/s", "ratio", "median wait, s", "95 % wait, s"):
        table.add_column(column, justify="right")
    rates: dict[tuple[int, int], float] = {}
    for count in replicas:
        with serving(count, port) as address, ThreadPoolExecutor(max(clients)) as pool:
            url = f"{address}?prompt=a+photo+of+a+face&steps={steps}"
            list(pool.map(lambda _, url=url: ask(url, file.getvalue(), 1), range(2 * count)))  # warms up
            for callers in clients:
                began = time.perf_counter()
                each = list(pool.map(lambda _, url=url: ask(url, file.getvalue(), pictures), range(callers)))
                rates[count, callers] = callers * pictures / (time.perf_counter() - began)
                seconds = [second for own in each for second in own]
                table.add_row(
                    str(count),
                    str(callers),
                    f"{rates[count, callers]:.2f}",
                    f"{rates[count, callers] / rates[replicas[0], callers]:.2f}",
                    f"{statistics.median(seconds):.1f}",
                    f"{np.quantile(seconds, 0.95):.1f}",
                )
    Console(width=100).print(table)


if __name__ == "__main__":
    tyro.cli(main)
