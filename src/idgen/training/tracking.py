"""What a run logs: means of the losses, rows of `metrics.jsonl`, and the trackers of accelerate."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from ..errors import MissingDependencyError, TrainingError
from ..files import unwritten, write_whole
from ..losses import TermLog, Weighted

METRICS = "metrics.jsonl"
"""File in the folder of a run, with a row for each update and each validation."""

PROJECT = "idgen"
_SUMS = ("sum", "samples", "invalid")


class LossMeans:
    """Means of the losses of one update, over all passes and processes.

    Args:
        accelerator: Accelerator of the run.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.sums: dict[str, torch.Tensor] = {}

    def add(self, found: Weighted) -> None:
        """Add the losses of one pass."""
        size = torch.tensor(float(len(found.values)), device=found.values.device)
        logs = {**found.terms, "loss": TermLog(found.values.detach().sum(), size, torch.zeros_like(size))}
        for name, log in logs.items():
            for part in _SUMS:
                value = getattr(log, part).to(self.accelerator.device, torch.float32)
                self.sums[f"{name}/{part}"] = self.sums.get(f"{name}/{part}", torch.zeros_like(value)) + value

    def means(self) -> dict[str, float]:
        """Mean of each loss, and the share of samples without a face. All processes call it together."""
        names = sorted(self.sums)
        summed = self.accelerator.reduce(torch.stack([self.sums[name] for name in names]), "sum")
        sums = dict(zip(names, summed.tolist(), strict=True))  # pyright: ignore[reportAttributeAccessIssue]
        means = {}
        for name in {name.rsplit("/", 1)[0] for name in names}:
            if sums[f"{name}/samples"]:
                means[name] = sums[f"{name}/sum"] / sums[f"{name}/samples"]
            if sums[f"{name}/invalid"]:
                counted = sums[f"{name}/samples"] + sums[f"{name}/invalid"]
                means[f"{name}/no_face"] = sums[f"{name}/invalid"] / counted
        return {name: means[name] for name in sorted(means)}


# -- metrics.jsonl


def append_row(file: Path, row: Mapping[str, Any]) -> None:
    """Append a row. Numbers that are not finite are written as null, because JSON has no other form for them.

    Raises:
        TrainingError: The file cannot be written.
    """
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with file.open("a", encoding="utf-8") as opened:
            opened.write(_line(row))
    except OSError as error:
        raise TrainingError(unwritten(file, error)) from error


def read_rows(file: Path) -> list[dict[str, Any]]:
    """Read all rows, oldest first; an empty list if there is no file.

    Lines that are not valid rows are left out, because a crash may have cut the last line.
    """
    if not file.exists():
        return []
    return [row for line in file.read_text(encoding="utf-8", errors="replace").splitlines() if (row := _row(line))]


def cut_rows(file: Path, step: int) -> None:
    """Remove the rows after an update, so that a run resumed from it records each update once.

    Raises:
        TrainingError: The file cannot be written.
    """
    if not file.exists():
        return
    rows = [row for row in read_rows(file) if row["step"] <= step]
    with write_whole(file, TrainingError) as new:
        new.write_text("".join(map(_line, rows)), encoding="utf-8")


def _line(row: Mapping[str, Any]) -> str:
    finite = {name: None if isinstance(v, float) and not math.isfinite(v) else v for name, v in row.items()}
    return json.dumps(finite, allow_nan=False) + "\n"


def _row(line: str) -> dict[str, Any] | None:
    try:
        row = json.loads(line, parse_constant=lambda _: None)
    except ValueError:
        return None
    return row if isinstance(row, dict) and isinstance(row.get("step"), int) else None


# -- trackers


def check_tracker(name: str | None) -> None:
    """Check that a tracker is installed; accelerate would silently ignore a missing one.

    Raises:
        MissingDependencyError: Its package is missing.
    """
    if name is not None and name not in {str(tracker) for tracker in get_available_trackers()}:
        raise MissingDependencyError(f"The tracker '{name}' needs its package: pip install {name}")


def start_trackers(accelerator: Accelerator, config: Mapping[str, Any]) -> None:
    """Start a run in the trackers of an accelerator.

    Args:
        accelerator: Accelerator of the run.
        config: Configuration of the run; it may be nested.
    """
    accelerator.init_trackers(PROJECT, flatten(config))


def show_pictures(
    accelerator: Accelerator, prompts: Sequence[str], step: int, people: Sequence[Sequence[np.ndarray]]
) -> None:
    """Send validation pictures to all trackers, under one name per prompt.

    Args:
        accelerator: Accelerator of the run.
        prompts: Prompts of the pictures.
        step: Updates so far.
        people: For each person (height, width, 3) uint8 pictures, one per prompt.
    """
    for tracker in accelerator.trackers:
        for prompt, pictures in zip(prompts, zip(*people, strict=True), strict=True):
            name = f"validation/{prompt}"
            if tracker.name == "tensorboard":
                tracker.log_images({name: np.stack(pictures)}, step=step, dataformats="NHWC")  # pyright: ignore
            elif tracker.name == "trackio":
                import trackio  # pyright: ignore[reportMissingImports]

                tracker.log({f"{name}/{i}": trackio.Image(picture) for i, picture in enumerate(pictures)}, step=step)
            else:
                tracker.log_images({name: list(pictures)}, step=step)  # pyright: ignore[reportAttributeAccessIssue]


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, bool | int | float | str]:
    """Flatten a nested configuration: `{"loop": {"seed": 0}}` becomes `{"loop.seed": 0}`.

    Weights of losses are named like their settings, `losses.identity`. Values that are no booleans, numbers or strings
    become strings.
    """
    found: dict[str, bool | int | float | str] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= flatten(value, prefix if name == "weights" else f"{prefix}{name}.")
        else:
            found[prefix + name] = value if isinstance(value, bool | int | float | str) else str(value)
    return found
