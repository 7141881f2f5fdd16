"""Pictures of other people that the base model draws, for prior preservation (DreamBooth, ID-Booth)."""

from __future__ import annotations

import io
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from rich.progress import track

from ...errors import TrainingError
from ...files import read_text, write_bytes
from ...terminal import console
from ...tiny.usage import Usage
from ..base import BaseModel

BATCH = 4
SETTINGS = "settings.json"


def draw_prior(
    base: BaseModel, folder: Path, prompt: str, count: int, side: int, usage: Usage, seed: int = 0
) -> list[Path]:
    """Draw pictures without an identity. An interrupted run continues: pictures of the same weights and settings are
    kept.

    Args:
        base: Draws them.
        folder: Folder for the pictures, `000.png` and so on.
        prompt: Prompt of all pictures.
        count: Number of pictures.
        side: Side of the pictures in pixels.
        usage: Steps and guidance scale.
        seed: Seed of the first picture.
    """
    files = [folder / f"{number:03d}.png" for number in range(count)]
    _forget_others(folder, {"base": base.frozen, "prompt": prompt, "side": side, "seed": seed, **asdict(usage)})
    missing = [number for number, file in enumerate(files) if not file.is_file()]
    pipeline = base.pipeline
    progress = getattr(pipeline, "_progress_bar_config", {})
    pipeline.set_progress_bar_config(disable=True)
    starts = range(0, len(missing), BATCH)
    for start in track(starts, "Drawing prior pictures", console=console, disable=not missing):
        numbers = missing[start : start + BATCH]
        pictures = pipeline(
            [prompt] * len(numbers),
            height=side,
            width=side,
            num_inference_steps=usage.num_inference_steps,
            guidance_scale=usage.guidance_scale,
            generator=[torch.Generator().manual_seed(seed + number) for number in numbers],
        ).images
        for number, picture in zip(numbers, pictures, strict=True):
            buffer = io.BytesIO()
            picture.save(buffer, format="PNG")
            write_bytes(files[number], buffer.getvalue(), TrainingError)
    pipeline.set_progress_bar_config(**progress)
    return files


def _forget_others(folder: Path, settings: dict[str, Any]) -> None:
    """Remove the pictures of an earlier run with other settings."""
    file, text = folder / SETTINGS, json.dumps(settings, indent=1)
    if file.is_file() and read_text(file, error=TrainingError) == text:
        return
    for picture in folder.glob("[0-9]*.png"):
        picture.unlink()
    write_bytes(file, text.encode(), TrainingError)
