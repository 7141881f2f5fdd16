"""What all branches have in common: tokens → keys and values, and hooks that apply these in one layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple, Protocol

import torch

from .hooks import HookOwner
from .regions import Regions

if TYPE_CHECKING:
    from .conditioning import ForwardConditioning


class Branch(Protocol):
    """What an adapter trains for one cross-attention layer of the UNet.

    Attributes:
        scales_values: Whether the strength of the conditioning is a factor on the values.
    """

    scales_values: ClassVar[bool]

    def __call__(self, tokens: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """(batch, tokens, cross_attention_dim) → keys and values, (batch, tokens, inner_dim)."""
        ...


class KeysValues(NamedTuple):
    """One person's keys and values for one layer and one UNet batch, (batch, heads, tokens, head_dim); those of all
    people in a row if they have no regions."""

    keys: torch.Tensor
    values: torch.Tensor


class BranchHooks(HookOwner):
    """Forward hooks that apply a branch in one layer. Without `people` the layer's output does not change.

    Args:
        heads: Attention heads of the layer.
        token: See `HookOwner`.

    Attributes:
        people: Keys and values of each person, or `None`, by batch size: with gradient checkpointing, forwards of
            several batch sizes run again in one backward pass.
        regions: Where each person may appear, or `None` for everywhere.
        shown: (images, 1, 1, keys), which keys of several people without regions are read, or `None` for all.
    """

    def __init__(self, heads: int, token: str) -> None:
        super().__init__(token)
        self.heads = heads
        self.people: Mapping[int, Sequence[KeysValues]] | None = None
        self.regions: Regions | None = None
        self.shown: torch.Tensor | None = None

    def apply(
        self, people: Mapping[int, Sequence[KeysValues]] | None, bound: ForwardConditioning | None, path: str
    ) -> None:
        """Use the conditioning of a forward in the layer at `path`, or none."""
        self.people = people
        self.regions = None if bound is None else bound.regions
        self.shown = None if bound is None else bound.shown

    def shown_to(self, batch: int) -> torch.Tensor | None:
        """(batch, 1, 1, keys), which keys each row of a UNet batch reads, or `None` for all."""
        return None if self.shown is None else self.shown.repeat(batch // len(self.shown), 1, 1, 1)

    def masks(self, people: int, positions: int, batch: int) -> Sequence[torch.Tensor | None]:
        """(1 or batch, positions, 1) for each person, where they may appear, or `None` for everywhere."""
        return [None] * people if self.regions is None else self.regions.at(positions, batch)
