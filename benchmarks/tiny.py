"""Measure the speed of `idgen-tiny`, and draw its contact sheet.

    python benchmarks/tiny.py --sheet docs/images/tiny/styles.png

The target is under two seconds per picture on two cores, at 25 steps with guidance. The sheet has a row for each style
and a column for each seed.
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from typing import Any

import torch
from diffusers import StableDiffusionPipeline
from PIL import Image, ImageDraw

from idgen.evaluation.prompts import PROMPT_SETS
from idgen.tiny import load_tiny_base

PROMPTS = {prompt.label: prompt.text for prompt in PROMPT_SETS["tiny"]}
ZOOM, LABEL, GAP = 2, 110, 4
"""Of the sheet: how much pictures are enlarged, width of the labels and space between pictures in pixels."""


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


def contact_sheet(rows: dict[str, list[Image.Image]]) -> Image.Image:
    """Labelled rows of pictures of one size."""
    columns = max(len(pictures) for pictures in rows.values())
    side = ZOOM * next(iter(rows.values()))[0].width + GAP
    sheet = Image.new("RGB", (LABEL + columns * side, len(rows) * side), "white")
    pen = ImageDraw.Draw(sheet)
    for y, (label, pictures) in enumerate(rows.items()):
        pen.text((6, y * side + side // 2 - 6), label, fill="black")
        for x, picture in enumerate(pictures):
            large = picture.resize((side - GAP, side - GAP), Image.Resampling.BICUBIC)
            sheet.paste(large, (LABEL + x * side, y * side))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sheet", type=Path, help="PNG to write")
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
        rows = {
            style: [draw(pipe, prompt, seed, arguments.steps, arguments.guidance) for seed in range(arguments.seeds)]
            for style, prompt in PROMPTS.items()
        }
        print(f"contact sheet of {len(rows)} styles × {arguments.seeds} seeds: {arguments.sheet}")
        arguments.sheet.parent.mkdir(parents=True, exist_ok=True)
        contact_sheet(rows).save(arguments.sheet)


if __name__ == "__main__":
    main()
