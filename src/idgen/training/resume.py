"""The folder of a run: locked while it is used, and resumed exactly or refused."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import nn

from .. import files
from ..data.people_options import PeopleOptions
from ..errors import CheckpointError, TrainingError
from ..losses.table import LOSSES
from ..rewards.table import REWARDS
from .checkpoint import check_whole, list_checkpoints, load_state, set_aside, step_of
from .distributed import on_main
from .step import CONFIG
from .tracking import METRICS, flatten
from .trainable import LORA_FILE

LATEST = "latest"
_log = logging.getLogger(__name__)

MAY_CHANGE = frozenset(
    {
        "output_dir",
        "train_data_dir",  # the photos in it may not; their checksums are compared
        "photos",  # likewise
        "optimizer.learning_rate",
        "optimizer.weight_decay",
        "optimizer.max_grad_norm",
        "optimizer.explosion",
        "faces.checkpointing",
        "rollout.checkpointing",
        "data.dataloader_num_workers",
        "loop.max_train_steps",  # unless the learning rate schedule depends on it
        "loop.gradient_accumulation_steps",
        "loop.gradient_checkpointing",
        "loop.compile",
        "loop.checkpointing_steps",
        "loop.checkpoints_total_limit",
        "loop.resume_from_checkpoint",
        "loop.max_bad_steps",
        "loop.report_to",
        "loop.seed",
        "loop.dry_run",
        "validation.validation_people",
        "validation.validation_prompts",
        "validation.eval_encoder",
        "eval_encoder",
        "validation_pictures",
        "patience",
        "draw_steps",
    }
)
"""Settings that a resumed run may change. All others must have the values of the checkpoint."""

_GONE = frozenset({"validation.judge"})
"""Settings of earlier versions that have another name now, and may change."""

ADDED: dict[str, Any] = {
    "adapter.placement": "parallel",
    "adapter.beside": None,
    "adapter.blocks": "()",
    "adapter.face_only": False,
    "data.curriculum_steps": 0,
    "data.group": "face",
    "losses.divergence": "js",
    "identity": 0.0,
    "identity_net": False,
    "losses.moved": "()",
    "losses.styles": "()",
    "losses.word_parts": "()",
    "rewards.over_people": "mean",
    "rollout.style": 0.0,
    **{f"losses.{name}": "0" for name in LOSSES.rows},
    **{f"rewards.{name}": "0" for name in REWARDS.rows},
    **{f"people.{name}": value for name, value in flatten(asdict(PeopleOptions())).items()},
}
"""Settings that checkpoints of earlier versions lack, and what they were then."""

FROZEN = "frozen"
"""Keys of the networks and pictures that a run reads but does not train; checkpoints of earlier versions lack them."""

ENDLESS_SCHEDULES = ("constant", "constant_with_warmup")
"""Learning rate schedules that do not depend on the length of the run."""

_BARE = ("adapter.", "data.", "loop.", "validation.")


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Lock a folder against other runs. The main process holds the lock; see `idgen.files.locked`.

    Raises:
        TrainingError: Another run holds the lock, or the folder cannot be written.
    """
    with ExitStack() as stack:
        on_main(stack.enter_context, files.locked(folder, TrainingError))
        yield


def check_free(folder: Path) -> None:
    """Check that a folder does not hold a run or its results.

    Raises:
        TrainingError: It does.
    """
    found = [path.name for path in list_checkpoints(folder)]
    found += [name for name in (METRICS, CONFIG, LORA_FILE) if (folder / name).exists()]
    if found:
        raise TrainingError(
            f"'{folder}' already holds a run ({', '.join(found[:3])}). Resume it with "
            "--resume_from_checkpoint latest, or set another output_dir."
        )


def check_start(folder: Path, asked: str | None, settings: Mapping[str, Any]) -> None:
    """Raise before anything is loaded what `find_checkpoint` and `check_unchanged` would raise afterwards.

    Args:
        folder: Folder of the run.
        asked: See `find_checkpoint`.
        settings: Settings that are known before the base model and the shards are opened.

    Raises:
        TrainingError: The folder holds a run that is not to be resumed, or that has other settings.
    """
    if asked is None:
        check_free(folder)
        return
    checkpoints = list_checkpoints(folder) if asked == LATEST else [Path(asked)]
    now = flatten(settings)
    for path in checkpoints[-1:]:
        with suppress(CheckpointError):  # it is damaged; an older one may not be
            before = load_state(path).settings
            check_unchanged({name: value for name, value in before.items() if name in now}, now, str(path))


def find_checkpoint(folder: Path, asked: str | None) -> Path | None:
    """Find the checkpoint to resume from; None for a new run.

    Args:
        folder: Folder of the run.
        asked: Folder of a checkpoint, "latest" for the newest undamaged one, or None for a new run.

    Raises:
        TrainingError: The folder holds a run, and a new run or the checkpoint of another run is asked for.
        CheckpointError: The checkpoint that is asked for is damaged, or all of them are.
    """
    if asked is None:
        check_free(folder)
        return None
    if asked != LATEST:
        check_whole(Path(asked))
        if Path(asked).resolve().parent != folder.resolve():
            check_free(folder)
        return Path(asked)
    checkpoints = list_checkpoints(folder)
    for path in reversed(checkpoints):
        try:
            check_whole(path)
        except CheckpointError as error:
            _log.warning("%s An older checkpoint is tried.", error)
        else:
            return path
    if checkpoints:
        raise CheckpointError(f"All {len(checkpoints)} checkpoints in '{folder}' are damaged. Set another output_dir.")
    if any((folder / name).exists() for name in (CONFIG, LORA_FILE)):
        raise CheckpointError(
            f"'{folder}' holds trained weights but no checkpoint to resume from. Start a new run in another folder "
            f"from these weights: --id_adapter '{folder}'."
        )
    return None


def set_newer_aside(folder: Path, start: Path, step: int) -> None:
    """Rename the checkpoints after the one that a run resumes from; the run will write its own in their place."""
    for path in list_checkpoints(folder):
        if step_of(path) >= step and path.resolve() != start.resolve():
            _log.warning("'%s' comes after update %d and is kept as '%s'.", path, step, set_aside(path).name)


def check_unchanged(before: Mapping[str, Any], now: Mapping[str, Any], where: str) -> None:
    """Compare the flat settings of a checkpoint with those of the run that resumes from it.

    Args:
        before: Settings of the checkpoint.
        now: Settings of the run.
        where: Folder of the checkpoint, for the message.

    Raises:
        TrainingError: Settings, networks or pictures that must not change have changed; they are named.
    """
    before = {name: value for name, value in ADDED.items() if name in now} | {**before}
    may_change = MAY_CHANGE
    if before.get("optimizer.lr_scheduler") not in ENDLESS_SCHEDULES:
        may_change = may_change - {"loop.max_train_steps"}
    names = [name for name in {**now, **before} if name not in may_change | _GONE]
    changed = [name for name in names if before.get(name) != now.get(name)]
    prefix = f"{FROZEN}."
    settings = [name for name in changed if not name.startswith(prefix)]
    contents = [name.removeprefix(prefix) for name in changed if name.startswith(prefix)]
    otherwise = f"or start a new run in another folder from its weights: --id_adapter '{where}'."
    if settings:
        listed = "; ".join(f"{_flag(name)} was {_said(before, name)}, now {_said(now, name)}" for name in settings[:8])
        more = f"; and {len(settings) - 8} more" if len(settings) > 8 else ""
        raise TrainingError(
            f"The run of '{where}' has other settings: {listed}{more}. Resume with the same values, {otherwise}"
        )
    if contents and any(name.startswith(prefix) for name in before):
        raise TrainingError(
            f"The run of '{where}' began with other contents of {', '.join(contents)}. Resume with the same files, "
            f"{otherwise}"
        )


def count_weights(module: nn.Module) -> dict[str, int]:
    """Count the trained weights of each part of a module."""
    found: dict[str, int] = {}
    for name, weight in module.named_parameters():
        if weight.requires_grad:
            part = name.partition(".")[0]
            found[part] = found.get(part, 0) + weight.numel()
    return found


def _flag(name: str) -> str:
    """The name of a setting on the command line."""
    return next((name.removeprefix(part) for part in _BARE if name.startswith(part)), name)


def _said(settings: Mapping[str, Any], name: str) -> str:
    return repr(settings[name]) if name in settings else "not set"
