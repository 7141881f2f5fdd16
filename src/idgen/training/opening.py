"""What every stage opens and ends a run with: its folder, its accelerator, the base model and the loop."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from accelerate import Accelerator

from .base import BaseModel
from .batch import Batches
from .distributed import make_accelerator, on_main
from .dry_run import dry_run
from .files_read import contents
from .loop import Loop
from .resume import FROZEN, check_start, locked
from .run_config import RunConfig
from .step import TrainingStep
from .tracking import check_tracker, start_trackers


def lock_folder(config: RunConfig) -> AbstractContextManager[None]:
    """Lock the folder of a run; a dry run writes nothing."""
    return nullcontext() if config.loop.dry_run else locked(config.output_dir)


def open_run(config: RunConfig) -> tuple[Accelerator, BaseModel]:
    """Check the folder of a run, and open its accelerator, its trackers and the frozen base model.

    Raises:
        TrainingError: The folder holds a run that cannot be resumed, or the accelerator cannot be made.
        CheckpointError: The base model cannot be opened.
    """
    loop = config.loop
    check_tracker(loop.report_to)
    accelerator = make_accelerator(loop, config.output_dir)
    if not loop.dry_run:
        on_main(check_start, config.output_dir, loop.resume_from_checkpoint, settings_of(config, accelerator))
    torch.manual_seed(loop.seed)
    dtype = {"no": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16}[accelerator.mixed_precision]
    base = BaseModel.open(config.base, dtype, accelerator.device)
    if loop.gradient_checkpointing:
        base.unet.enable_gradient_checkpointing()
    if loop.compile:
        base.unet.compile()  # in place, at its first call, with the hooks that it has then
    if not loop.dry_run:
        start_trackers(accelerator, asdict(config))
    return accelerator, base


def make_loop(
    config: RunConfig,
    step: TrainingStep,
    batches: Batches,
    base: BaseModel,
    accelerator: Accelerator,
    *,
    data: Mapping[str, Any],
    validate: Callable[[int], dict[str, float]] | None = None,
    early_stopping: Callable[[Path], bool] | None = None,
) -> Loop:
    """The loop of a run, with the settings that a resumed run is compared by.

    Args:
        config: Configuration of the run.
        step: See `Loop`; so are `batches`, `accelerator`, `validate` and `early_stopping`.
        batches: Batches of this process.
        base: The frozen base model.
        accelerator: Accelerator of the run.
        data: Settings that identify the photos.
        validate: Validation.
        early_stopping: Early stopping.
    """
    settings = settings_of(config, accelerator)
    frozen = {"base": base.frozen, **contents(settings)}
    return Loop(
        step,
        batches,
        config.output_dir,
        config.loop,
        config.optimizer,
        accelerator,
        validate=validate,
        early_stopping=early_stopping,
        run_settings={**settings, **data, "base.weights": base.keys, FROZEN: frozen},
    )


def run_loop(loop: Loop) -> int:
    """Train until the end or a signal, or measure what the run needs.

    Returns:
        The number of updates so far; 0 after a dry run.
    """
    if loop.config.dry_run:
        dry_run(loop)
        return 0
    return loop.run()


def settings_of(config: RunConfig, accelerator: Accelerator) -> dict[str, Any]:
    """The settings of a run that its configuration gives."""
    settings = asdict(config)
    settings["loop"]["mixed_precision"] = accelerator.mixed_precision
    return {"stage": config.stage, **settings}
