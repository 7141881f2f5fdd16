"""How weights are updated: optimizer, learning rate schedule, rejected updates, and the moving average."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from diffusers.optimization import get_scheduler
from diffusers.training_utils import EMAModel
from torch.optim.lr_scheduler import LRScheduler

from ..errors import MissingDependencyError, TrainingError
from .distributed import split_like, whole_tensor
from .optimizer_config import OptimizerConfig

NORM_DECAY = 0.99
"""Decay of the running mean of gradient norms: about a hundred updates."""


def make_optimizer(config: OptimizerConfig, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Make the optimizer of a configuration.

    Raises:
        MissingDependencyError: Its package is not installed.
    """
    options: dict[str, Any] = {"lr": config.learning_rate, "weight_decay": config.weight_decay}
    if config.name == "adamw":
        return torch.optim.AdamW(parameters, **options)
    package, attribute = {"adamw8bit": ("bitsandbytes", "optim"), "prodigy": ("prodigyopt", "Prodigy")}[config.name]
    try:
        module = __import__(package)
    except ImportError as error:
        raise MissingDependencyError(
            f"The optimizer '{config.name}' needs {package}: pip install {package}"
        ) from error
    made = getattr(module, attribute)
    return made.AdamW8bit(parameters, **options) if config.name == "adamw8bit" else made(parameters, **options)


def make_schedule(
    config: OptimizerConfig, optimizer: torch.optim.Optimizer, updates: int, done: int = 0
) -> LRScheduler:
    """Make the learning rate schedule as it is after `done` updates; it depends on the configuration alone.

    Args:
        config: Its learning rate and weight decay are set in the optimizer.
        optimizer: Optimizer that is not wrapped by accelerate, which would step the schedule once per process.
        updates: Updates of the whole run.
        done: Updates so far.

    Raises:
        TrainingError: diffusers cannot make the schedule.
    """
    for group in optimizer.param_groups:
        group |= {"lr": config.learning_rate, "initial_lr": config.learning_rate, "weight_decay": config.weight_decay}
    try:
        return get_scheduler(
            config.lr_scheduler,
            optimizer,
            num_warmup_steps=config.lr_warmup_steps,
            num_training_steps=updates,
            last_epoch=done - 1,
        )
    except ValueError as error:
        raise TrainingError(f"lr_scheduler '{config.lr_scheduler}' cannot be used: {error}.") from error


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """Return the state of an optimizer as tensors and JSON values. All processes call it together."""
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
    """Load what `optimizer_tensors` returned. All processes call it together."""
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
    """An option of a parameter group as a JSON value; Prodigy keeps some as tensors with several processes."""
    return value.item() if isinstance(value, torch.Tensor) else value


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The state of one weight without nested tables; bitsandbytes nests its 8-bit state."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value


@dataclass
class UpdateFilter:
    """Rejects updates whose gradient norm is not finite or exceeds `ratio` times the running mean.

    The running mean is over about a hundred accepted updates. Until it has seen that many, every finite norm is
    accepted: the gradients of a new adapter grow from almost zero.

    Attributes:
        ratio: Largest accepted norm, in running means; 0 to accept every finite norm.
        max_rejected: Rejected updates in a row that are allowed.
        total: Decayed sum of the accepted norms, not corrected for its start at 0.
        seen: Accepted updates.
        rejected: Rejected updates.
        in_a_row: Rejected updates since the last accepted one.
    """

    ratio: float
    max_rejected: int
    total: float = 0.0
    seen: int = 0
    rejected: int = 0
    in_a_row: int = 0

    def __call__(self, norm: float) -> bool:
        """Whether to accept the update with this gradient norm. All processes see the same norm.

        Raises:
            TrainingError: Too many updates in a row were rejected.
        """
        if math.isfinite(norm) and not self._explodes(norm):
            self.total = NORM_DECAY * self.total + (1 - NORM_DECAY) * norm
            self.seen += 1
            self.in_a_row = 0
            return True
        self.rejected += 1
        self.in_a_row += 1
        if self.in_a_row > self.max_rejected:
            raise TrainingError(
                f"The gradient was not finite, or exploded, in {self.in_a_row} updates in a row: lower the learning "
                "rate, or resume from a checkpoint with another seed."
            )
        return False

    def _explodes(self, norm: float) -> bool:
        enough = self.seen * (1 - NORM_DECAY) >= 1
        return bool(self.ratio) and enough and norm > self.ratio * self.total / (1 - NORM_DECAY**self.seen)


class WeightAverage:
    """Exponential moving average (EMA) of the trained weights, which a run validates and saves.

    Args:
        parameters: Trained weights.
        decay: Decay of the average; with 0 the weights themselves are used.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], decay: float) -> None:
        self.parameters = parameters
        self.ema = EMAModel(parameters, decay=decay) if decay else None

    @property
    def updates(self) -> int:
        """Number of averaged updates."""
        return 0 if self.ema is None else self.ema.optimization_step

    def update(self) -> None:
        """Add the current weights to the average."""
        if self.ema is not None:
            self.ema.step(self.parameters)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Set the parameters to their average within the `with`."""
        if self.ema is None:
            yield
            return
        self.ema.store(self.parameters)
        self.ema.copy_to(self.parameters)
        try:
            yield
        finally:
            self.ema.restore(self.parameters)

    def tensors(self) -> dict[str, torch.Tensor]:
        """The average as tensors for a checkpoint. All processes call it together."""
        shadows = [] if self.ema is None else self.ema.shadow_params
        return {f"ema.{i}": whole_tensor(weight) for i, weight in enumerate(shadows)}

    def load(self, tensors: dict[str, torch.Tensor], updates: int) -> None:
        """Load what `tensors` and `updates` returned."""
        if self.ema is not None:
            self.ema.shadow_params = [split_like(tensors[f"ema.{i}"], w) for i, w in enumerate(self.parameters)]
            self.ema.optimization_step = updates
