"""`OptimizerConfig`: how weights are updated."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from ..errors import TrainingError

Schedule = Literal["constant", "constant_with_warmup", "linear", "cosine", "cosine_with_restarts", "polynomial"]


@dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """The optimizer, the learning rate schedule and the weight average.

    Attributes:
        name: Optimizer: "adamw", "adamw8bit" (needs bitsandbytes) or "prodigy" (needs prodigyopt; use
            learning_rate 1).
        learning_rate: Learning rate after warm-up.
        weight_decay: Weight decay of the optimizer.
        lr_scheduler: Learning rate schedule, by its name in diffusers.
        lr_warmup_steps: Warm-up steps of the learning rate.
        max_grad_norm: Maximum norm for gradient clipping.
        explosion: Skip updates whose gradient norm exceeds this many times the running mean; 0 to never skip.
        ema_decay: Decay of the exponential moving average of the weights, which is then validated and saved; 0 for
            none.
        combine: How the gradients of the identity losses (or rewards) and of all other losses are combined: "sum";
            "pcgrad", which removes from each what opposes the other; or "mgda", the weights that reduce both. The
            last two cost one more backward pass.
    """

    name: Literal["adamw", "adamw8bit", "prodigy"] = "adamw"
    learning_rate: float = 1e-4
    weight_decay: float = 1e-2
    lr_scheduler: Schedule = "constant_with_warmup"
    lr_warmup_steps: int = 100
    max_grad_norm: float = 1.0
    explosion: float = 100.0
    ema_decay: float = 0.0
    combine: Literal["sum", "pcgrad", "mgda"] = "sum"

    def __post_init__(self) -> None:
        if self.lr_scheduler not in get_args(Schedule):
            raise TrainingError(
                f"lr_scheduler must be one of {', '.join(get_args(Schedule))}, not '{self.lr_scheduler}'."
            )
