"""The identity conditioning of one call of an `IdentityNet`, and the hooks that apply it."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from ..errors import AdapterError
from .hooks import ForwardHooks, owner_of
from .layers import cross_attention_layers, forget_compiled
from .regions import Regions
from .state import lock_of
from .tokens import BatchLayout, IdentityTokens, default_layout

if TYPE_CHECKING:
    from .identity_net import IdentityNet

Residuals = tuple[list[torch.Tensor], torch.Tensor]


class NetConditioning:
    """The identity conditioning of one call, and the residuals that later steps may reuse.

    Attributes:
        tokens: Negative tokens, then those of each person, laid out over the batch of the running forward.
    """

    def __init__(
        self,
        people: Sequence[IdentityTokens],
        num_images: int,
        layout: Callable[[], BatchLayout] | None,
        regions: Regions | None,
        interval: int,
        shown: torch.Tensor | None = None,
    ) -> None:
        negative = people[0].negative_tokens.expand(num_images, -1, -1)
        positive = [each.tokens.repeat_interleave(num_images // len(each.tokens), 0) for each in people]
        if shown is not None:
            positive = [torch.where(shown[:, i, None, None], each, negative) for i, each in enumerate(positive)]
        self.tokens: list[torch.Tensor] = []
        self.regions = regions
        self._by_image = [negative, *positive]
        self._num_images, self._layout, self._interval = num_images, layout, interval
        self._laid_out: dict[BatchLayout, list[torch.Tensor]] = {}
        self._age = 0
        self._kept: tuple[Hashable, Residuals] | None = None

    def lay_out(self, batch: int, guess_mode: bool) -> None:
        """Set `tokens` for a batch of this size.

        Raises:
            AdapterError: The batch size does not fit the number of images and the layout.
        """
        layout = default_layout(batch, self._num_images) if self._layout is None else self._layout()
        if guess_mode:  # the pipeline leaves the negative half out
            layout = layout[-1:]
        if len(layout) * self._num_images != batch:
            raise AdapterError(f"The IdentityNet was called with a batch of {batch} for {self._num_images} image(s).")
        if layout not in self._laid_out:
            negative = self._by_image[0]
            self._laid_out[layout] = [torch.cat([one if c else negative for c in layout]) for one in self._by_image]
        self.tokens = self._laid_out[layout]

    def residuals(self, compute: Callable[[float], Residuals], scale: float, inputs: Hashable) -> Residuals:
        """Compute the residuals, or scale those of an earlier call with inputs of the same form."""
        if self._interval == 1:
            return compute(scale)
        if self._kept is None or self._kept[0] != inputs or self._age == self._interval:
            self._kept, self._age = (inputs, compute(1.0)), 0
        self._age += 1
        down, mid = self._kept[1]
        return [residual * scale for residual in down], mid * scale  # new ones: a list of ControlNets adds in place


class IdentityNetHooks(ForwardHooks[NetConditioning, NetConditioning]):
    """Hooks on an `IdentityNet` that set the conditioning of the running call during each forward."""

    def __init__(self, net: IdentityNet) -> None:
        with lock_of(net):
            super().__init__(net, net, uuid.uuid4().hex)
        forget_compiled(net)

    @classmethod
    def of(cls, net: IdentityNet) -> IdentityNetHooks:
        """The hooks of a net, made at the first call."""
        owners = map(owner_of, net._forward_pre_hooks.values())
        return next((each for each in owners if isinstance(each, cls)), None) or cls(net)

    def bind(self, state: NetConditioning, args: tuple[Any, ...], kwargs: dict[str, Any]) -> NetConditioning:
        """See `ForwardHooks`."""
        sample = args[0] if args else kwargs["sample"]
        state.lay_out(len(sample), bool(kwargs.get("guess_mode")))
        if state.regions is not None:
            state.regions.fit(*sample.shape[-2:])
        return state

    def apply(self, bound: NetConditioning | None) -> None:
        """See `ForwardHooks`."""
        self.module.__dict__["conditioning"] = bound


@contextmanager
def regional_attention(net: IdentityNet, conditioning: NetConditioning) -> Iterator[None]:
    """Make each cross-attention layer read each person's tokens in their region, and negative tokens elsewhere."""

    def split(
        layer: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: torch.Tensor
    ) -> torch.Tensor | None:
        if net.conditioning is not conditioning or conditioning.regions is None:  # the forward of another call
            return None
        _, *people = conditioning.tokens
        masks = torch.stack(conditioning.regions.at(args[0].shape[1], len(args[0])))
        shares = masks / masks.sum(0).clamp(min=1)
        found = output * (1 - shares.sum(0))
        for tokens, share in zip(people, shares, strict=True):
            found = found + share * layer.forward(*args, **{**kwargs, "encoder_hidden_states": tokens})
        return found

    if conditioning.regions is None:
        yield
        return
    layers = cross_attention_layers(net).values()
    with lock_of(net):
        handles = [layer.register_forward_hook(split, with_kwargs=True) for layer in layers]
        forget_compiled(net)
    try:
        yield
    finally:
        with lock_of(net):
            for handle in handles:
                handle.remove()
            forget_compiled(net)
