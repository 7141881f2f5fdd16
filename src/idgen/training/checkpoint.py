"""Checkpoints of a run: everything that it needs to go on as if it had never stopped, whole or not there."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from ..errors import CheckpointError
from .sharded import split_like, whole_tensor

PREFIX = "checkpoint-"


def save_checkpoint(
    output_dir: Path, step: int, parts: Any, tensors: dict[str, torch.Tensor], state: dict[str, Any], limit: int
) -> Path:
    """Write `checkpoint-{step}`, then delete the oldest beyond the limit.

    Args:
        output_dir: Of the run.
        step: Updates so far.
        parts: What is trained; has `save(folder)`, see `TrainingStep`.
        tensors: Of the optimizer and the average.
        state: Everything else, as values that JSON can hold.
        limit: How many checkpoints are kept.
    """
    output_dir.mkdir(parents=True, exist_ok=True)
    for stale in output_dir.glob(".checkpoint*"):  # of a run that was killed while it wrote
        shutil.rmtree(stale)
    target = output_dir / f"{PREFIX}{step}"
    with tempfile.TemporaryDirectory(dir=output_dir, prefix=".checkpoint") as folder:
        new = Path(folder, "new")
        parts.save(new)
        save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, new / "training.safetensors")
        (new / "training.json").write_text(json.dumps({"step": step, **state}))
        if target.exists():
            shutil.rmtree(target)
        os.replace(new, target)
    for old in list_checkpoints(output_dir)[:-limit]:
        shutil.rmtree(old)
    return target


def list_checkpoints(output_dir: Path) -> list[Path]:
    """All checkpoints of a run, oldest first."""
    found = [path for path in output_dir.glob(f"{PREFIX}*") if path.name.removeprefix(PREFIX).isdigit()]
    return sorted(found, key=lambda path: int(path.name.removeprefix(PREFIX)))


def find_checkpoint(output_dir: Path, asked: str | None) -> Path | None:
    """The checkpoint to go on from: a folder, or `"latest"`, which is none in a new run.

    Raises:
        CheckpointError: The folder is no checkpoint.
    """
    if asked is None:
        return None
    if asked == "latest":
        return (list_checkpoints(output_dir) or [None])[-1]
    if not (Path(asked) / "training.json").is_file():
        raise CheckpointError(f"'{asked}' is no checkpoint of a training run: it has no training.json.")
    return Path(asked)


def load_checkpoint(folder: Path) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Tensors and state as `save_checkpoint` was given them.

    Raises:
        CheckpointError: It is damaged.
    """
    try:
        with safe_open(folder / "training.safetensors", framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        return tensors, json.loads((folder / "training.json").read_text())
    except (OSError, SafetensorError, ValueError) as error:
        raise CheckpointError(f"The checkpoint '{folder}' could not be read: {error}") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """An optimizer's state as tensors and JSON: nothing of it needs a pickle. All processes call it together."""
    state = optimizer.state_dict()
    tensors, numbers = {}, {}
    for index, values in state["state"].items():
        for name, value in _flat(values):
            if isinstance(value, torch.Tensor):
                tensors[f"optimizer.{index}.{name}"] = whole_tensor(value)
            else:
                numbers[f"optimizer.{index}.{name}"] = value
    groups = [{name: _plain(value) for name, value in group.items()} for group in state["param_groups"]]
    return tensors, {"groups": groups, "numbers": numbers}


def load_optimizer(optimizer: torch.optim.Optimizer, tensors: dict[str, torch.Tensor], state: dict[str, Any]) -> None:
    """Undo `optimizer_tensors`."""
    weights = [weight for group in optimizer.param_groups for weight in group["params"]]
    entries: dict[int, dict[str, Any]] = {}
    for name, value in {**tensors, **state["numbers"]}.items():
        if not name.startswith("optimizer."):
            continue
        _, index, key = name.split(".", 2)
        weight, entry = weights[int(index)], entries.setdefault(int(index), {})
        if isinstance(value, torch.Tensor) and value.shape == weight.shape:
            value = split_like(value, weight)
        *tables, last = key.split("/")
        for table in tables:
            entry = entry.setdefault(table, {})
        entry[last] = value
    optimizer.load_state_dict({"state": entries, "param_groups": state["groups"]})


def _plain(value: Any) -> Any:
    """A group's option as JSON can hold it: Prodigy has some as tensors where several processes agree on them."""
    return value.item() if isinstance(value, torch.Tensor) else value


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """What one weight's state holds, tables in it included: bitsandbytes keeps its 8 bits in one."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value
