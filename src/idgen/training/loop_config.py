"""`LoopConfig`: the length of a run, its batches, checkpoints and logs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import TrainingError

MAX_SEED = 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class LoopConfig:
    """The length of the run, its batches, checkpoints and logs.

    Attributes:
        max_train_steps: Total number of weight updates.
        train_batch_size: Samples per process and forward pass.
        gradient_accumulation_steps: Forward and backward passes per weight update.
        gradient_checkpointing: Recompute the UNet's activations in the backward pass: less memory, more time.
        compile: Compile the UNet with torch.compile, which needs a C++ compiler. The first updates take minutes, all
            others less time.
        mixed_precision: Precision of the frozen networks: "no", "fp16" or "bf16"; by default what accelerate is
            configured for. Trained weights stay in float32.
        checkpointing_steps: Save a checkpoint, and validate, every this many updates.
        checkpoints_total_limit: Number of checkpoints to keep; older ones are deleted.
        resume_from_checkpoint: Checkpoint to resume from: a folder, or "latest" for the newest undamaged checkpoint
            in output_dir (a new run if there is none). Without it, an output_dir that already holds a run is refused.
        max_bad_steps: Stop with an error after more than this many skipped updates in a row. An update is skipped if
            its gradient is not finite or too large (see optimizer.explosion).
        report_to: Tracker: "tensorboard", "wandb" (sends metrics and pictures to its service) or "trackio".
            metrics.jsonl is always written.
        seed: Random seed of the initial weights, the noise and the order of the samples, 0 to 4294967295.
        dry_run: Print the number of parameters, the peak memory and the expected duration, and exit.
    """

    max_train_steps: int = 10_000
    train_batch_size: int = 8
    gradient_accumulation_steps: int = 1
    gradient_checkpointing: bool = False
    compile: bool = False
    mixed_precision: Literal["no", "fp16", "bf16"] | None = None
    checkpointing_steps: int = 500
    checkpoints_total_limit: int = 2
    resume_from_checkpoint: str | None = None
    max_bad_steps: int = 20
    report_to: Literal["tensorboard", "wandb", "trackio"] | None = None
    seed: int = 0
    dry_run: bool = False

    def __post_init__(self) -> None:
        passes = ("train_batch_size", "gradient_accumulation_steps")
        for name in ("max_train_steps", *passes, "checkpointing_steps", "checkpoints_total_limit"):
            if getattr(self, name) < 1:
                raise TrainingError(f"{name} must be at least 1, not {getattr(self, name)}.")
        if self.compile and self.gradient_checkpointing:
            raise TrainingError("A UNet with gradient checkpointing cannot be compiled: set one of the two, not both.")
        if not 0 <= self.seed <= MAX_SEED:
            raise TrainingError(f"seed must lie between 0 and {MAX_SEED}, not {self.seed}.")
