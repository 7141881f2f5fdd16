"""Trackers by name, through accelerate: numbers of every update, pictures of every validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from accelerate import Accelerator
from accelerate.tracking import get_available_trackers

from ..errors import MissingDependencyError
from .settings import flatten

PROJECT = "idgen"


def check_tracker(name: str | None) -> None:
    """Refuse a tracker that is not installed; accelerate would leave it out without a word.

    Raises:
        MissingDependencyError: Its package is missing.
    """
    if name is not None and name not in {str(tracker) for tracker in get_available_trackers()}:
        raise MissingDependencyError(f"The tracker '{name}' needs its package: pip install {name}")


def start_trackers(accelerator: Accelerator, config: Mapping[str, Any]) -> None:
    """Begin a run in the accelerator's trackers, with its configuration, whose parts may lie in each other."""
    accelerator.init_trackers(PROJECT, flatten(config))


def show_pictures(
    accelerator: Accelerator, prompts: Sequence[str], step: int, people: Sequence[Sequence[np.ndarray]]
) -> None:
    """Give validation pictures to all trackers, under a name for each prompt.

    Args:
        accelerator: Whose trackers they are.
        prompts: What the pictures show.
        step: Updates so far.
        people: For each person (height, width, 3) uint8 pictures, one a prompt.
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
