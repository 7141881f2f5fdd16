"""The folder of a run: used by one run at a time, and gone on with only where that was asked for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from .. import files
from ..errors import CheckpointError, IdgenError, TrainingError
from .checkpoint import check_whole, list_checkpoints, load_state, set_aside, step_of
from .lora import FILE as LORA
from .metrics import NAME as METRICS
from .settings import check_unchanged, flatten
from .step import CONFIG

LATEST = "latest"
Result = TypeVar("Result")
_log = logging.getLogger(__name__)


def on_main(work: Callable[..., Result], *arguments: Any) -> Result:
    """Call a function on the main process and return its result on all; an error of ours is raised on all too."""
    state = PartialState()
    outcome: list[Any] = [None, None]
    if state.is_main_process:
        try:
            outcome[0] = work(*arguments)
        except IdgenError as error:
            outcome[1] = error
    if state.num_processes > 1:
        broadcast_object_list(outcome)
    if outcome[1] is not None:
        raise outcome[1]
    return outcome[0]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keep other runs out of a folder; the main process holds the lock, see `idgen.files.locked`.

    Raises:
        TrainingError: Another run holds the folder, or nothing can be written there.
    """
    with ExitStack() as stack:
        on_main(stack.enter_context, files.locked(folder, TrainingError))
        yield


def check_free(folder: Path) -> None:
    """Refuse a folder that holds a run, or what one has made.

    Raises:
        TrainingError: It does.
    """
    found = [path.name for path in list_checkpoints(folder)]
    found += [name for name in (METRICS, CONFIG, LORA) if (folder / name).exists()]
    if found:
        raise TrainingError(
            f"'{folder}' already holds a run ({', '.join(found[:3])}). Go on with it by "
            "--resume_from_checkpoint latest, or give another output_dir."
        )


def check_start(folder: Path, asked: str | None, settings: Mapping[str, Any]) -> None:
    """Refuse at once what `find_start` and the loop would refuse when everything is loaded.

    Args:
        folder: Of the run.
        asked: As for `find_start`.
        settings: Of the run, as far as they are known.

    Raises:
        TrainingError: The folder holds a run that is not asked for, or that has other settings.
    """
    if asked is None:
        check_free(folder)
        return
    checkpoints = list_checkpoints(folder) if asked == LATEST else [Path(asked)]
    now = flatten(settings)
    for path in checkpoints[-1:]:
        with suppress(CheckpointError):  # a damaged one; an older one may be whole
            before = load_state(path).settings
            check_unchanged({name: value for name, value in before.items() if name in now}, now, str(path))


def find_start(folder: Path, asked: str | None) -> Path | None:
    """The checkpoint that a run begins from, or none.

    A damaged checkpoint costs its updates and not the run: `"latest"` is the newest that is whole.

    Args:
        folder: Of the run.
        asked: "latest", the folder of a checkpoint, or nothing.

    Raises:
        TrainingError: Nothing is asked for and the folder holds a run already; or another run's checkpoint is.
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
        raise CheckpointError(f"None of {len(checkpoints)} checkpoints in '{folder}' is whole. Use a new output_dir.")
    if any((folder / name).exists() for name in (CONFIG, LORA)):
        raise CheckpointError(
            f"'{folder}' holds trained weights and no checkpoint to go on from. Start another run in a new folder "
            f"from these weights: --id_adapter '{folder}'."
        )
    return None


def leave_behind(folder: Path, start: Path, step: int) -> None:
    """Rename the checkpoints that come after the one a run begins from; the run will write its own in their place."""
    for path in list_checkpoints(folder):
        if step_of(path) >= step and path.resolve() != start.resolve():
            _log.warning("'%s' comes after update %d and is kept as '%s'.", path, step, set_aside(path).name)
