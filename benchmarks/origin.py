"""Measure how often `idgen origin` finds the picture of an index that an edited picture was made from.

    python benchmarks/origin.py photos/

The built-in model draws the pictures that are looked up. Photos, cropped to squares, fill the index up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from diffusers import AutoPipelineForImage2Image
from PIL import Image
from rich.console import Console
from rich.progress import track
from scipy.stats import binomtest
from tracing import EDITS, SIDE, square

from idgen.provenance import LatentReader, PictureIndex
from idgen.tiny import load_tiny_base

BATCH = 50
STEPS = 8
PROMPTS = ("a photo of a face", "a pencil sketch of a face", "an oil painting of a face")
STRENGTHS = (0.3, 0.5, 0.7)


def main(photos: tyro.conf.Positional[Path], /, size: int = 10_000, queries: int = 200) -> None:
    """Print the table of the guide.

    Args:
        photos: Folder of photos.
        size: Pictures in the index.
        queries: Pictures of the index that are looked up. As many others, drawn and photos, are looked up too.
    """
    files = sorted(photos.rglob("*.jpg"))
    drawn = draw(2 * queries)
    kept, others = drawn[:queries], drawn[queries:]
    indexed = [*kept, *files[: size - queries]]
    reader = LatentReader("tiny")
    named = ((str(i), opened(each)) for i, each in enumerate(track(indexed, "Indexing", console=Console(stderr=True))))
    index = PictureIndex.of(named, reader)
    print(f"{len(index):,} pictures, {queries} of them drawn; threshold {index.threshold:.3f}", flush=True)
    print("| edit | first | first, and above the threshold |")
    for name, changed in edited(kept):
        best = [origins[0] for origins in index.find(changed, reader, 1)]
        right = np.array([origin.name == str(i) for i, origin in enumerate(best)])
        above = np.array([origin.score >= index.threshold for origin in best])
        print(f"| {name} | {share(right)} | {share(right & above)} |", flush=True)
    unknown = {"drawn": others, "photos": [opened(file) for file in files[size:][-queries:]]}
    for name, pictures in unknown.items():
        scores = np.array([best.score for (best,) in index.find(pictures, reader, 1)])
        print(f"not in the index, {name}: {share(scores >= index.threshold)} above the threshold", flush=True)


def opened(picture: Image.Image | Path) -> Image.Image:
    return square(picture, SIDE) if isinstance(picture, Path) else picture


def edited(pictures: Sequence[Image.Image]) -> Any:
    """(name, edited pictures) of each edit, those of the model last."""
    for name, edit in EDITS.items():
        yield name, [edit(picture) for picture in pictures]
    for strength in STRENGTHS:
        yield f"redrawn, strength {strength}", redraw(pictures, strength)


def draw(count: int) -> list[Image.Image]:
    """Pictures by the built-in model, in few steps."""
    pipeline: Any = load_tiny_base()

    def act(numbers: range) -> list[Image.Image]:
        prompts = [PROMPTS[number % len(PROMPTS)] for number in numbers]
        return pipeline(prompts, generator=seeds(numbers), **settings(pipeline)).images

    return in_batches(act, count)


def redraw(pictures: Sequence[Image.Image], strength: float) -> list[Image.Image]:
    """Draw pictures again from noisy copies (SDEdit, arXiv 2108.01073)."""
    pipeline: Any = AutoPipelineForImage2Image.from_pipe(load_tiny_base())

    def act(numbers: range) -> list[Image.Image]:
        prompts, images = ["a photo of a face"] * len(numbers), [pictures[number] for number in numbers]
        generator = seeds(range(numbers.start + 1, numbers.stop + 1))
        return pipeline(prompts, image=images, strength=strength, generator=generator, **settings(pipeline)).images

    return in_batches(act, len(pictures))


def seeds(numbers: range) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(number) for number in numbers]


def settings(pipeline: Any) -> dict[str, Any]:
    pipeline.set_progress_bar_config(disable=True)
    return {"num_inference_steps": STEPS, "guidance_scale": 1.0}


def in_batches(act: Callable[[range], list[Image.Image]], count: int) -> list[Image.Image]:
    return [image for start in range(0, count, BATCH) for image in act(range(start, min(start + BATCH, count)))]


def share(right: np.ndarray) -> str:
    """A share with its 95 % Wilson interval."""
    found = binomtest(int(right.sum()), len(right))
    low, high = found.proportion_ci(method="wilson")
    return f"{found.statistic:.1%} ({low:.1%} to {high:.1%})"


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main)
