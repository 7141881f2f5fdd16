"""Measure the speed of `idgen-tiny`, and draw its contact sheet.

    python benchmarks/tiny.py --sheet docs/images/tiny/styles.webp

The target is under two seconds per picture on two cores, at 25 steps with guidance. The sheet has a row for each style
and a column for each seed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image
from sheet import labelled_sheet

from idgen.evaluation.prompts import PROMPT_SETS
from idgen.tiny import load_tiny_base

PROMPTS = {prompt.label: prompt.text for prompt in PROMPT_SETS["tiny"]}


def seconds_per_picture(pipe: StableDiffusionPipeline, steps: int, guidance: float, repeats: int) -> float:
    """Median time of one picture, drawn alone; the first, which warms up, does not count."""
    times = []
    for seed in range(repeats + 1):
        start = time.perf_counter()
        draw(pipe, PROMPTS["photo"], seed, steps, guidance)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def draw(pipe: StableDiffusionPipeline, prompt: str, seed: int, steps: int, guidance: float) -> Image.Image:
    generator = torch.Generator().manual_seed(seed)
    made: Any = pipe(prompt, num_inference_steps=steps, guidance_scale=guidance, generator=generator)
    return made.images[0]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", type=Path, help="WebP or PNG file to write")
    parser.add_argument("--steps", type=int, default=25)
    parser.add_argument("--guidance", type=float, default=3.0)
    parser.add_argument("--repeats", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    pipe = load_tiny_base()
    pipe.set_progress_bar_config(disable=True)
    seconds = seconds_per_picture(pipe, arguments.steps, arguments.guidance, arguments.repeats)
    how = f"{arguments.steps} steps, guidance {arguments.guidance}, {arguments.threads} threads"
    print(f"{seconds:.2f} s a picture ({how})")
    if arguments.sheet:
        rows: dict[str, Sequence[Image.Image]] = {
            style: [draw(pipe, prompt, seed, arguments.steps, arguments.guidance) for seed in range(arguments.seeds)]
            for style, prompt in PROMPTS.items()
        }
        print(f"contact sheet of {len(rows)} styles × {arguments.seeds} seeds: {arguments.sheet}")
        arguments.sheet.parent.mkdir(parents=True, exist_ok=True)
        labelled_sheet(rows).save(arguments.sheet)


if __name__ == "__main__":
    main()
