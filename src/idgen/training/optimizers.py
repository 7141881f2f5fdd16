"""Optimizers and schedules of the learning rate by name, and the state of an optimizer as files can hold it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import torch
from diffusers.optimization import get_scheduler

from ..errors import MissingDependencyError, TrainingError
from .config import OptimizerConfig
from .sharded import split_like, whole_tensor


def make_optimizer(config: OptimizerConfig, parameters: Iterable[torch.nn.Parameter]) -> torch.optim.Optimizer:
    """Make the optimizer that the configuration names.

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


def make_schedule(config: OptimizerConfig, optimizer: torch.optim.Optimizer, updates: int, done: int = 0) -> Any:
    """Make the schedule of the learning rate, at any of its places: it follows from the configuration alone.

    Args:
        config: Its learning rate and weight decay are given to the optimizer.
        optimizer: Not wrapped by accelerate, which would step the schedule once for each process.
        updates: Of the whole run.
        done: Updates so far.

    Raises:
        TrainingError: There is no such schedule.
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
    """Give an optimizer the state that `optimizer_tensors` returned. All processes call it together."""
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
    """A group's option as JSON can hold it; Prodigy keeps some as tensors where there are several processes."""
    return value.item() if isinstance(value, torch.Tensor) else value


def _flat(values: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """The entries of one weight's state and of the tables in it; bitsandbytes keeps its 8 bits in one."""
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value
