"""The `Accelerator` of a run: devices, processes, precision, and the passes that make one update."""

from __future__ import annotations

from pathlib import Path

from accelerate import Accelerator

from ..errors import TrainingError
from .config import LoopConfig

PRECISIONS = ("no", "fp16", "bf16")


def make_accelerator(loop: LoopConfig, output_dir: Path) -> Accelerator:
    """Make the accelerator that a `Loop` with this configuration expects.

    Args:
        loop: Precision, accumulation and trackers are read from it.
        output_dir: Where trackers write.

    Raises:
        TrainingError: This machine cannot compute in the precision, or accelerate is configured for another number of
            passes than the run.
    """
    try:
        accelerator = Accelerator(
            mixed_precision=loop.mixed_precision,
            gradient_accumulation_steps=loop.gradient_accumulation_steps,
            log_with=loop.report_to,
            project_dir=output_dir,
        )
    except ValueError as error:
        raise TrainingError(f"accelerate cannot start with mixed_precision={loop.mixed_precision}: {error}") from error
    precision = accelerator.mixed_precision
    if precision not in PRECISIONS:
        raise TrainingError(f"mixed_precision must be one of {', '.join(PRECISIONS)}, not '{precision}'.")
    if precision == "fp16" and accelerator.device.type == "cpu":
        raise TrainingError("mixed_precision=fp16 needs a GPU, and there is none; use 'no' or 'bf16' on a CPU.")
    check_accumulation(accelerator, loop)
    return accelerator


def check_accumulation(accelerator: Accelerator, loop: LoopConfig) -> None:
    """Refuse an accelerator that divides the loss by another number than the run has passes.

    Raises:
        TrainingError: The two numbers differ.
    """
    theirs, ours = accelerator.gradient_accumulation_steps, loop.gradient_accumulation_steps
    if theirs != ours:
        raise TrainingError(
            f"The run accumulates {ours} passes for an update, but accelerate is configured for {theirs}: set "
            f"gradient_accumulation_steps to {ours} there too, or make the accelerator with make_accelerator."
        )
