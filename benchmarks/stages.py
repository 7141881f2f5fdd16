"""Measure CPU time of each stage of `idgen prepare`, and the size of a photo in a shard.

    python benchmarks/stages.py lfw/ [--layout webdataset] [--count 96] [--widths 150 1000 4000]

Photos are enlarged to each width. Times are CPU times of one thread, which other work on the machine changes little.
"""

from __future__ import annotations

import io
import time
from collections import defaultdict
from collections.abc import Callable
from itertools import islice
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image
from rich.console import Console
from rich.table import Table

from idgen.data.quality import pose, sharpness, thumbnail
from idgen.data.read_photos import BATCH_PHOTOS
from idgen.data.sources import Layout, find_sources
from idgen.faces import DlibDetector, DlibEncoder, align_face, load_photo

CONSOLE = Console(width=110)


def main(
    photos: tyro.conf.Positional[str],
    layout: Layout = "webdataset",
    count: int = 96,
    widths: tuple[int, ...] = (150, 1000, 4000),
) -> None:
    """Measure.

    Args:
        photos: Where photos are.
        layout: How they lie there; see `idgen prepare`.
        count: Photos to time.
        widths: Of the photos, in pixels.
    """
    torch.set_num_threads(1)
    files = [source.photo.read() for source in islice(find_sources(photos, layout), count) if source.photo]
    measured = {width: stages([enlarge(file, width) for file in files]) for width in widths}
    table = Table("ms of a core for each photo", *(f"{width} px" for width in widths))
    for name in measured[widths[0]]:
        table.add_row(name, *(f"{measured[width][name]:.1f}" for width in widths))
    CONSOLE.print(table)


def enlarge(file: bytes, width: int) -> bytes:
    image = Image.fromarray(load_photo(file))
    if image.width == width:
        return file
    buffer = io.BytesIO()
    image.resize((width, round(image.height * width / image.width)), Image.Resampling.LANCZOS).save(
        buffer, "JPEG", quality=90
    )
    return buffer.getvalue()


def stages(files: list[bytes]) -> dict[str, float]:
    """Stage → milliseconds a photo; and kB of the file, of its crops, and faces a photo."""
    detector, encoder = DlibDetector(), DlibEncoder()
    spent: defaultdict[str, float] = defaultdict(float)

    def timed(name: str, work: Callable[[], Any]) -> Any:
        start = time.thread_time()
        result = work()
        spent[name] += (time.thread_time() - start) * 1000
        return result

    list(detector.detect(load_photo(files[0])))  # opens the networks
    encoder.embed(np.zeros((1, 150, 150, 3), np.uint8))
    crops, written = [], 0
    for file in files:
        image = timed("decoding", lambda file=file: load_photo(file))
        for face in timed("detection and landmarks", lambda image=image: detector.detect(image)):
            both = timed("crops", lambda i=image, f=face: (encoder.crop(i, f.landmarks), align_face(i, f.landmarks)))
            crops.append(both[0])
            timed("quality", lambda a=both[1], f=face: (sharpness(a), thumbnail(a), pose(f.landmarks)))
            written += len(timed("the crop as a file", lambda a=both[1]: as_png(a)))
    for start in range(0, len(crops), BATCH_PHOTOS):
        timed("embedding, in batches", lambda s=start: encoder.embed(np.stack(crops[s : s + BATCH_PHOTOS])))
    found = {name: value / len(files) for name, value in spent.items()}
    return found | {
        "all of it": sum(found.values()),
        "faces a photo": len(crops) / len(files),
        "kB of the photo": sum(map(len, files)) / len(files) / 1000,
        "kB of its faces' crops": written / len(files) / 1000,
    }


def as_png(crop: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(crop).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


if __name__ == "__main__":
    tyro.cli(main)
