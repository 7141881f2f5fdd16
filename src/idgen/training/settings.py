"""What a run was started with, and which of it may have another value when the run goes on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from ..errors import TrainingError

MAY_CHANGE = frozenset(
    {
        "output_dir",
        "train_data_dir",  # the photos in it may not; they are compared by their checksums
        "optimizer.learning_rate",
        "optimizer.weight_decay",
        "optimizer.max_grad_norm",
        "optimizer.explosion",
        "faces.checkpointing",
        "rollout.checkpointing",
        "data.dataloader_num_workers",
        "loop.max_train_steps",  # unless the schedule of the learning rate depends on it
        "loop.gradient_accumulation_steps",
        "loop.gradient_checkpointing",
        "loop.checkpointing_steps",
        "loop.checkpoints_total_limit",
        "loop.resume_from_checkpoint",
        "loop.max_bad_steps",
        "loop.report_to",
        "loop.seed",
        "loop.dry_run",
        "validation.validation_people",
        "validation.validation_prompts",
        "validation.judge",
    }
)
"""A run that goes on uses the new value of these. Any other setting must be what it was."""

ENDLESS_SCHEDULES = ("constant", "constant_with_warmup")
"""Schedules of the learning rate that do not depend on the length of the run."""

_BARE = ("adapter.", "data.", "loop.", "validation.")


def flatten(config: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"loop": {"seed": 0}}` → `{"loop.seed": 0}`, with nothing but numbers and strings in it."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if isinstance(value, Mapping):
            found |= flatten(value, f"{prefix}{name}.")
        else:
            found[prefix + name] = value if isinstance(value, bool | int | float | str) else str(value)
    return found


def count_weights(module: nn.Module) -> dict[str, int]:
    """How many weights of each part of a module are trained."""
    found: dict[str, int] = {}
    for name, weight in module.named_parameters():
        if weight.requires_grad:
            part = name.partition(".")[0]
            found[part] = found.get(part, 0) + weight.numel()
    return found


def check_unchanged(before: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Compare the flat settings of a checkpoint with those of the run that shall go on from it.

    Args:
        before: Of the checkpoint.
        now: Of the run.
        where: The checkpoint's folder, for the message.

    Raises:
        TrainingError: A setting that defines the run is another one; all such are named.
    """
    may_change = MAY_CHANGE
    if before.get("optimizer.lr_scheduler") not in ENDLESS_SCHEDULES:
        may_change = may_change - {"loop.max_train_steps"}
    names = [name for name in {**now, **before} if name not in may_change]
    changed = [name for name in names if before.get(name) != now.get(name)]
    if not changed:
        return
    listed = "; ".join(f"{_flag(name)} was {_said(before, name)}, now {_said(now, name)}" for name in changed[:8])
    more = f"; and {len(changed) - 8} more" if len(changed) > 8 else ""
    raise TrainingError(
        f"The run of '{where}' has other settings: {listed}{more}. Give the same values to go on with it, or start "
        f"another run in a new folder from its weights: --id_adapter '{where}'."
    )


def _flag(name: str) -> str:
    """The setting as it is named on the command line."""
    return next((name.removeprefix(part) for part in _BARE if name.startswith(part)), name)


def _said(settings: Mapping[str, Any], name: str) -> str:
    return repr(settings[name]) if name in settings else "not set"
