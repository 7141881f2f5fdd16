"""The exponential moving average of the weights, which is what a run validates and saves."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from diffusers.training_utils import EMAModel

from .sharded import split_like, whole_tensor


class Average:
    """An average, or with a decay of 0 the weights themselves.

    Args:
        parameters: What is trained.
        decay: Of the average.
    """

    def __init__(self, parameters: Sequence[torch.nn.Parameter], decay: float) -> None:
        self.parameters = parameters
        self.ema = EMAModel(parameters, decay=decay) if decay else None

    @property
    def updates(self) -> int:
        """How many it has seen."""
        return 0 if self.ema is None else self.ema.optimization_step

    def update(self) -> None:
        """Take the weights of an update in."""
        if self.ema is not None:
            self.ema.step(self.parameters)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Give the parameters the averaged values inside the `with`."""
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
        """The average for a checkpoint. All processes call it together."""
        shadows = [] if self.ema is None else self.ema.shadow_params
        return {f"ema.{i}": whole_tensor(weight) for i, weight in enumerate(shadows)}

    def load(self, tensors: dict[str, torch.Tensor], updates: int) -> None:
        """Take what `tensors` and `updates` returned."""
        if self.ema is not None:
            self.ema.shadow_params = [split_like(tensors[f"ema.{i}"], w) for i, w in enumerate(self.parameters)]
            self.ema.optimization_step = updates
