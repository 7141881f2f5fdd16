"""Optimizers by name."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch

from ..errors import MissingDependencyError
from .config import OptimizerConfig


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
