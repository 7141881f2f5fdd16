"""The weights that a run began with."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn

from .sharded import split_like


class StartingWeights:
    """A copy of the weights that are trained, as they are now.

    Args:
        module: Its parameters may be moved and split over processes afterwards.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._weights = [weight.detach().clone() for weight in self._trained()]

    @contextmanager
    def put_back(self) -> Iterator[None]:
        """Let the module hold them inside the `with`, in which nothing may be differentiated."""
        trained = self._trained()
        now = [weight.detach().clone() for weight in trained]
        _copy([split_like(start, weight) for start, weight in zip(self._weights, trained, strict=True)], trained)
        try:
            yield
        finally:
            _copy(now, trained)

    def _trained(self) -> list[torch.Tensor]:
        return [weight for weight in self._module.parameters() if weight.requires_grad]


@torch.no_grad()
def _copy(source: list[torch.Tensor], target: list[torch.Tensor]) -> None:
    for value, weight in zip(source, target, strict=True):
        weight.copy_(value)
