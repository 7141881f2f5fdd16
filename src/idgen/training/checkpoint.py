"""Checkpoints of a run: everything that is needed to resume it exactly, written atomically."""

from __future__ import annotations

import itertools
import json
import os
import re
import shutil
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, TrainingError
from ..files import read_json, read_tensors, read_text, sync, unwritten, write_tensors
from ..weights_key import sha256_of
from .step import TrainingStep

PREFIX = "checkpoint-"
TENSORS, STATE, SUMS = "training.safetensors", "training.json", "SHA256SUMS"
FORMAT = 2
"""Version of the settings in a checkpoint. Checkpoints of another version are not resumed."""

SUFFIXES = {".json", ".safetensors"}
"""Files that a resumed run reads; checksums cover them. The model card may be edited."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """The state of a run without its tensors, as JSON values.

    Attributes:
        step: Updates so far.
        settings: Flat settings; see `check_unchanged`.
        optimizer: See `optimizer_tensors`.
        scaler: State of the fp16 gradient scaler.
        data: Position in the data, the same for all processes.
        skipped: Rejected updates; see `UpdateFilter`.
        bad: Rejected updates since the last accepted one.
        norms: `total` and `seen` of the `UpdateFilter`.
        ema_steps: Updates of the weight average.
    """

    step: int
    settings: dict[str, Any]
    optimizer: dict[str, Any]
    scaler: dict[str, Any] | None
    data: dict[str, Any]
    skipped: int
    bad: int
    norms: tuple[float, int]
    ema_steps: int


def save_checkpoint(
    output_dir: Path, step: TrainingStep, tensors: dict[str, torch.Tensor], state: RunState, limit: int
) -> Path:
    """Write `checkpoint-{step}`, then delete the oldest checkpoints beyond the limit.

    All files are synced to the disk before the folder gets its name: a power failure leaves a whole checkpoint or
    none.

    Args:
        output_dir: Folder of the run.
        step: Training step, whose modules are saved.
        tensors: Tensors of the optimizer and the weight average.
        state: Everything else.
        limit: Number of checkpoints to keep.

    Raises:
        CheckpointError: The checkpoint cannot be written. Older checkpoints are not touched.
    """
    target = output_dir / f"{PREFIX}{state.step}"
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        for stale in output_dir.glob(".checkpoint*"):  # from a run that was killed while writing
            shutil.rmtree(stale)
        with tempfile.TemporaryDirectory(dir=output_dir, prefix=".checkpoint") as folder:
            new = Path(folder, "new")
            step.save(new)
            write_tensors(new / TENSORS, tensors)
            (new / STATE).write_text(json.dumps({"format": FORMAT, **asdict(state)}))
            (new / SUMS).write_text("".join(f"{sha256_of(new / name)}  {name}\n" for name in _read_again(new)))
            for path in (*new.rglob("*"), new):
                sync(path)
            if target.exists():
                os.replace(target, Path(folder, "old"))
            os.replace(new, target)
        sync(output_dir)
        for old in [path for path in list_checkpoints(output_dir) if path != target][: 1 - limit or None]:
            shutil.rmtree(old)
    except OSError as error:
        raise CheckpointError(unwritten(target, error)) from error
    return target


def list_checkpoints(output_dir: Path) -> list[Path]:
    """List the checkpoints of a run, oldest first."""
    named = re.compile(f"{PREFIX}[0-9]+")
    found = [path for path in output_dir.glob(f"{PREFIX}*") if named.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The number of updates in the name of a checkpoint."""
    return int(checkpoint.name.removeprefix(PREFIX))


def set_aside(checkpoint: Path) -> Path:
    """Rename a checkpoint so that `list_checkpoints` does not find it; returns its new path.

    Raises:
        CheckpointError: It cannot be renamed.
    """
    names = (checkpoint.with_name(f"{checkpoint.name}.old{i or ''}") for i in itertools.count())
    place = next(name for name in names if not os.path.lexists(name))
    try:
        os.rename(checkpoint, place)
    except OSError as error:
        raise CheckpointError(f"'{checkpoint}' could not be renamed: {error}.") from error
    return place


def check_whole(checkpoint: Path) -> None:
    """Compare the checksums of all files that a resumed run reads.

    Raises:
        CheckpointError: A file is missing, damaged or cannot be read.
    """
    try:
        if not (checkpoint / STATE).exists():
            raise CheckpointError(f"'{checkpoint}' is not a checkpoint of a training run: it has no {STATE}.")
        lines = read_text(checkpoint / SUMS).splitlines()
        sums = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        if sums.keys() ^ set(_read_again(checkpoint)):
            raise CheckpointError(f"The checkpoint '{checkpoint}' is damaged: its files are not those of {SUMS}.")
        damaged = [name for name, written in sums.items() if sha256_of(checkpoint / name) != written]
    except OSError as error:
        raise CheckpointError(f"The checkpoint '{checkpoint}' could not be read: {error}.") from error
    if damaged:
        raise CheckpointError(f"The checkpoint '{checkpoint}' is damaged: {', '.join(damaged)}.")


def load_state(checkpoint: Path) -> RunState:
    """Read the state of a run.

    Raises:
        CheckpointError: It cannot be read.
        TrainingError: It was written by a version of idgen with other settings.
    """
    values = read_json(checkpoint / STATE)
    if isinstance(values, dict) and values.pop("format", 1) != FORMAT:
        raise TrainingError(
            f"The checkpoint '{checkpoint}' was written by another version of idgen, whose runs cannot be resumed. "
            f"Start a new run in another folder from its weights: --id_adapter '{checkpoint}'."
        )
    try:
        return RunState(**values)
    except TypeError as error:
        raise CheckpointError(f"The checkpoint '{checkpoint}' could not be read: {error}.") from error


def load_tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """Read the tensors of the optimizer and the weight average.

    Raises:
        CheckpointError: They cannot be read.
    """
    return read_tensors(checkpoint / TENSORS)[0]


def _read_again(folder: Path) -> list[str]:
    """Names of the files that a resumed run reads."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in SUFFIXES)
