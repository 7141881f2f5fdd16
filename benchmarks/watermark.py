"""Measure how often the invisible watermark is found after usual edits of pictures.

    python benchmarks/watermark.py photos/ [--unmarked more-photos/]

Photos are cropped to squares and resized to each size; pictures of idgen-tiny are marked too. Pictures
without a mark measure false detections.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image, ImageOps
from rich.console import Console
from rich.progress import track

from idgen.faces import load_photo
from idgen.provenance import add_watermark, read_watermark
from idgen.tiny import load_tiny_base

CONSOLE = Console(stderr=True)
SIZES = (64, 128, 256, 512, 1024)


def jpeg(quality: int) -> Callable[[Image.Image], Image.Image]:
    def compress(image: Image.Image) -> Image.Image:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=quality)
        return Image.fromarray(load_photo(buffer.getvalue()))

    return compress


def resize(factor: float) -> Callable[[Image.Image], Image.Image]:
    return lambda image: image.resize((round(image.width * factor), round(image.height * factor)))


def crop(share: float) -> Callable[[Image.Image], Image.Image]:
    """The middle, with this share of width and height."""

    def cut(image: Image.Image) -> Image.Image:
        x, y = image.width * (1 - share) / 2, image.height * (1 - share) / 2
        return image.crop((round(x), round(y), round(image.width - x), round(image.height - y)))

    return cut


CHANGES: dict[str, Callable[[Image.Image], Image.Image]] = {
    "none": lambda image: image,
    "JPEG 90": jpeg(90),
    "JPEG 75": jpeg(75),
    "half size": resize(0.5),
    "crop 90 %": crop(0.9),
    "crop 75 %": crop(0.75),
    "crop 50 %": crop(0.5),
    "mirrored": ImageOps.mirror,
}


def main(photos: tyro.conf.Positional[Path], unmarked: Path | None = None, count: int = 50) -> None:
    print("| pictures | PSNR |", " | ".join(CHANGES), "|")
    measure("idgen-tiny, 128 px", list(draw(count)))
    files = sorted(photos.rglob("*.jpg"))[:count]
    for size in SIZES:
        measure(f"photos, {size} px", [square(file, size) for file in files])
    if unmarked is not None:
        agreeing = [
            read_watermark(Image.fromarray(load_photo(file))).agreeing
            for file in track(sorted(unmarked.rglob("*.jpg")), description="Unmarked", console=CONSOLE)
        ]
        counts = np.bincount(agreeing, minlength=33)
        print(f"{len(agreeing)} pictures without a mark; agreeing bits: {dict(enumerate(counts.tolist()))}")


def measure(name: str, pictures: list[Image.Image]) -> None:
    found = dict.fromkeys(CHANGES, 0)
    errors = []
    for picture in track(pictures, description=name, console=CONSOLE):
        marked = add_watermark(picture)
        errors.append(np.mean((np.asarray(marked, np.float64) - np.asarray(picture, np.float64)) ** 2))
        for change, act in CHANGES.items():
            found[change] += read_watermark(act(marked)).found
    psnr = np.mean(10 * np.log10(255**2 / np.array(errors)))
    print(
        f"| {name} | {psnr:.1f} dB |", " | ".join(f"{n / len(pictures):.0%}" for n in found.values()), "|", flush=True
    )


def draw(count: int) -> Iterator[Image.Image]:
    pipeline: Any = load_tiny_base()
    pipeline.set_progress_bar_config(disable=True)
    for seed in range(count):
        generator = torch.Generator().manual_seed(seed)
        yield pipeline("a photo of a face", num_inference_steps=25, guidance_scale=3.0, generator=generator).images[0]


def square(file: Path, size: int) -> Image.Image:
    return ImageOps.fit(Image.fromarray(load_photo(file)), (size, size))


if __name__ == "__main__":
    tyro.cli(main)
