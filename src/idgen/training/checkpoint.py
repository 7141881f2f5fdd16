"""Checkpoints of a run: everything that it needs to go on as if it had never stopped, whole or not there."""

from __future__ import annotations

import hashlib
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

from ..errors import CheckpointError
from ..files import read_json, read_tensors, read_text, sync, unwritten, write_tensors

PREFIX = "checkpoint-"
TENSORS, STATE, SUMS = "training.safetensors", "training.json", "SHA256SUMS"
FORMATS = {".json", ".safetensors"}
"""What a run reads again of a checkpoint; its card may be edited."""


@dataclass(frozen=True, kw_only=True)
class RunState:
    """What a run holds beside its tensors, as values that JSON can hold.

    Attributes:
        step: Updates so far.
        settings: Flat; see `settings.check_unchanged`.
        optimizer: See `optimizer_tensors`.
        scaler: Of fp16's gradient scaler.
        data: Position in the data, the same for all processes.
        skipped: Updates that were skipped.
        bad: Those in a row, up to the last one.
        norms: Sum and number of the norms that were seen.
        ema_steps: Updates of the average.
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
    output_dir: Path, parts: Any, tensors: dict[str, torch.Tensor], state: RunState, limit: int
) -> Path:
    """Write `checkpoint-{step}`, then delete the oldest beyond the limit.

    All of it is on the disk before it gets its name, so that a power failure leaves a whole checkpoint or none.

    Args:
        output_dir: Of the run.
        parts: What is trained; has `save(folder)`, see `TrainingStep`.
        tensors: Of the optimizer and the average.
        state: Everything else.
        limit: How many checkpoints are kept.

    Raises:
        CheckpointError: It cannot be written. Older checkpoints are left as they are.
    """
    target = output_dir / f"{PREFIX}{state.step}"
    try:
        output_dir.mkdir(parents=True, exist_ok=True)
        for stale in output_dir.glob(".checkpoint*"):  # of a run that was killed while it wrote
            shutil.rmtree(stale)
        with tempfile.TemporaryDirectory(dir=output_dir, prefix=".checkpoint") as folder:
            new = Path(folder, "new")
            parts.save(new)
            write_tensors(new / TENSORS, tensors)
            (new / STATE).write_text(json.dumps(asdict(state)))
            (new / SUMS).write_text("".join(f"{_sha256(new / name)}  {name}\n" for name in _read_again(new)))
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
    """All checkpoints of a run, oldest first."""
    named = re.compile(f"{PREFIX}[0-9]+")
    found = [path for path in output_dir.glob(f"{PREFIX}*") if named.fullmatch(path.name) and path.is_dir()]
    return sorted(found, key=step_of)


def step_of(checkpoint: Path) -> int:
    """The number of updates in the name of a checkpoint."""
    return int(checkpoint.name.removeprefix(PREFIX))


def set_aside(checkpoint: Path) -> Path:
    """Rename a checkpoint so that the run does not find it any more; returns its new place.

    Raises:
        CheckpointError: It cannot be renamed.
    """
    names = (checkpoint.with_name(f"{checkpoint.name}.old{i or ''}") for i in itertools.count())
    place = next(name for name in names if not os.path.lexists(name))
    try:
        os.rename(checkpoint, place)
    except OSError as error:
        raise CheckpointError(f"'{checkpoint}' is in the way and could not be renamed: {error}.") from error
    return place


def check_whole(checkpoint: Path) -> None:
    """Compare every file that a run reads with the checksum it was written with.

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
        damaged = [name for name, written in sums.items() if _sha256(checkpoint / name) != written]
    except OSError as error:
        raise CheckpointError(f"The checkpoint '{checkpoint}' could not be read: {error}.") from error
    if damaged:
        raise CheckpointError(f"The checkpoint '{checkpoint}' is damaged: {', '.join(damaged)}.")


def load_state(checkpoint: Path) -> RunState:
    """The state as `save_checkpoint` was given it.

    Raises:
        CheckpointError: It cannot be read, or is of another version.
    """
    try:
        return RunState(**read_json(checkpoint / STATE))
    except TypeError as error:
        raise CheckpointError(f"The checkpoint '{checkpoint}' could not be read: {error}.") from error


def load_tensors(checkpoint: Path) -> dict[str, torch.Tensor]:
    """The tensors as `save_checkpoint` was given them.

    Raises:
        CheckpointError: They cannot be read.
    """
    return read_tensors(checkpoint / TENSORS)[0]


def _read_again(folder: Path) -> list[str]:
    """The files that a run reads; a card may be edited."""
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.suffix in FORMATS)


def _sha256(file: Path) -> str:
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
