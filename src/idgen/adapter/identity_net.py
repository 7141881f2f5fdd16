"""`IdentityNet`: the ControlNet of InstantID (arXiv 2401.07519), which reads an identity where others read text."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, cast

import torch
from diffusers.models.controlnets.controlnet import ControlNetModel, ControlNetOutput
from diffusers.models.modeling_utils import ModelMixin as ModelMixin  # diffusers looks here when it opens a pipeline
from torch import nn

from ..checkpoints import native
from ..checkpoints.building import build
from ..errors import AdapterError
from .attention import Regions
from .call import ForwardBinding, activate, lock_of
from .condition import regions_of
from .hooks import owner_of
from .layers import cross_attention_layers, forget_compiled
from .persons import Person, Rows, rows_of_batch

Residuals = tuple[list[torch.Tensor], torch.Tensor]


class IdentityNet(ControlNetModel):
    """A ControlNet that reads identity tokens and a drawing of five landmarks.

    It goes wherever a ControlNet goes, alone or in a list with others: `pipeline(controlnet=net)`. A pipeline with an
    identity adapter gives it the adapter's tokens for the time of a call; the others in the list go on reading text.
    `IdentityNet.from_unet(pipe.unet)` starts one for any base, to be trained.
    """

    bound: _Reading | None = None
    """What the running forward reads; `NetBinding` sets it for the time of the forward."""

    @contextmanager
    def reading(
        self,
        persons: Sequence[Person],
        pictures: int,
        *,
        masks: Sequence[torch.Tensor] | None = None,
        rows: Callable[[], Rows] | None = None,
        interval: int = 1,
    ) -> Iterator[None]:
        """Condition the net on these persons instead of `encoder_hidden_states` inside the `with`.

        It holds in this thread and context only.

        Args:
            persons: Everybody in the picture, from `IdentityAdapter.person`.
            pictures: How many pictures are drawn at once.
            masks: Where each person may appear, (height, width) in [0, 1] each; elsewhere the net reads the negative
                tokens.
            rows: Called at each forward: which parts of the net's batch are conditional. If not given, a batch of
                `pictures` is conditional, and one of twice as many has the negative half first.
            interval: The residuals are computed in one of so many calls and used again in the others; they change
                slowly.

        Raises:
            AdapterError: Persons, masks and interval do not fit together.
        """
        if interval < 1:
            raise AdapterError(f"control_interval must be >= 1, got {interval}.")
        width = cast(int, self.config["cross_attention_dim"])
        if persons[0].tokens.shape[-1] != width:
            raise AdapterError(f"The IdentityNet reads tokens of width {width}, not {persons[0].tokens.shape[-1]}.")
        binding = NetBinding.of(self)
        reading = _Reading(persons, pictures, rows, regions_of(persons, masks), interval)
        with activate(self, reading), _split_by_region(self, reading):
            try:
                yield
            finally:
                binding.release(reading)

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        sample: torch.Tensor,
        timestep: torch.Tensor | float | int,
        encoder_hidden_states: torch.Tensor,
        controlnet_cond: torch.Tensor,
        conditioning_scale: float = 1.0,
        *args: Any,
        guess_mode: bool = False,
        return_dict: bool = True,
        **kwargs: Any,
    ) -> ControlNetOutput | tuple[list[torch.Tensor], torch.Tensor]:
        """As `ControlNetModel`, but the persons of `reading` are read instead of `encoder_hidden_states`.

        Raises:
            AdapterError: Outside of `reading`; text would be taken for a person.
        """
        reading = self.bound
        if reading is None:
            raise AdapterError(
                "An IdentityNet reads a person, not text: load_id_adapter, then give id_image or id_embeds."
            )

        def compute(scale: float) -> Residuals:
            options = {**kwargs, "guess_mode": guess_mode, "return_dict": False}
            found = ControlNetModel.forward(self, sample, timestep, tokens, controlnet_cond, scale, *args, **options)
            return cast(Residuals, found)

        tokens = reading.tokens[1 if reading.regions is None else 0]
        down, mid = reading.residuals(compute, conditioning_scale, (sample.shape, guess_mode))
        return ControlNetOutput(tuple(down), mid) if return_dict else (down, mid)  # pyright: ignore

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:  # pyright: ignore
        """Write `config.json` and the weights as safetensors; whole or not at all.

        Args:
            save_directory: Made if it does not exist.
            kwargs: As in diffusers.
        """
        native.save_pretrained(super().save_pretrained, save_directory, **kwargs)

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> Self:
        """Open one from a folder or the hub (`"InstantX/InstantID", subfolder="ControlNetModel"`), or from a file that
        `idgen convert` has put it into.

        Raises:
            CheckpointError: It cannot be found, is not safetensors, or lacks tensors or has others.
        """
        if os.path.isfile(pretrained_model_name_or_path):
            config, state = native.read_part(pretrained_model_name_or_path, "identity_net")
            net = build(cls, config, state, os.fspath(pretrained_model_name_or_path))
            nn.Module.to(net, dtype=kwargs.get("torch_dtype"))
            return net
        # ControlNets are published with settings of other versions of diffusers
        return native.load_pretrained(
            cls, super().from_pretrained, pretrained_model_name_or_path, known_only=True, **kwargs
        )


class _Reading:
    """What the net reads in a call, and the residuals it may use again.

    Attributes:
        tokens: Negative tokens and those of each person, laid out over the batch of the running forward.
    """

    def __init__(
        self,
        persons: Sequence[Person],
        pictures: int,
        rows: Callable[[], Rows] | None,
        regions: Regions | None,
        interval: int,
    ) -> None:
        negative = persons[0].negative.expand(pictures, -1, -1)
        people = [person.tokens.repeat_interleave(pictures // len(person.tokens), 0) for person in persons]
        self.tokens: list[torch.Tensor] = []
        self.regions = regions
        self._single = [negative, *people]
        self._pictures, self._rows, self._interval = pictures, rows, interval
        self._laid_out: dict[Rows, list[torch.Tensor]] = {}
        self._age = 0
        self._kept: tuple[Any, Residuals] | None = None

    def lay_out(self, batch: int, guess_mode: bool) -> None:
        """Make `tokens` for a batch of this size.

        Raises:
            AdapterError: The batch is not the one that the call's pictures and guidance make.
        """
        rows = rows_of_batch(batch, self._pictures) if self._rows is None else self._rows()
        if guess_mode:  # the pipeline leaves the negative half out
            rows = rows[-1:]
        if len(rows) * self._pictures != batch:
            raise AdapterError(f"The IdentityNet was called with a batch of {batch} for {self._pictures} picture(s).")
        if rows not in self._laid_out:
            negative = self._single[0]
            self._laid_out[rows] = [torch.cat([one if row else negative for row in rows]) for one in self._single]
        self.tokens = self._laid_out[rows]

    def residuals(self, compute: Any, scale: float, layout: Any) -> Residuals:
        """Compute the residuals, or scale those of an earlier call with the same layout."""
        if self._interval == 1:
            return compute(scale)
        if self._kept is None or self._kept[0] != layout or self._age == self._interval:
            self._kept, self._age = (layout, compute(1.0)), 0
        self._age += 1
        down, mid = self._kept[1]
        return [residual * scale for residual in down], mid * scale  # new ones: a list of ControlNets adds in place


class NetBinding(ForwardBinding):
    """Hooks on an `IdentityNet` that bind the running call's persons for the time of each forward."""

    def __init__(self, net: IdentityNet) -> None:
        with lock_of(net):
            super().__init__(net, net, uuid.uuid4().hex)
        forget_compiled(net)

    @classmethod
    def of(cls, net: IdentityNet) -> NetBinding:
        """The binding of a net, made at the first call."""
        owners = map(owner_of, net._forward_pre_hooks.values())
        return next((each for each in owners if isinstance(each, cls)), None) or cls(net)

    def bind(self, state: _Reading, args: tuple, kwargs: dict[str, Any]) -> _Reading:
        """See `ForwardBinding`."""
        sample = args[0] if args else kwargs["sample"]
        state.lay_out(len(sample), bool(kwargs.get("guess_mode")))
        if state.regions is not None:
            state.regions.fit(*sample.shape[-2:])
        return state

    def apply(self, bound: _Reading | None) -> None:
        """See `ForwardBinding`."""
        self.module.__dict__["bound"] = bound


@contextmanager
def _split_by_region(net: IdentityNet, reading: _Reading) -> Iterator[None]:
    """Let each cross-attention layer, which reads negative tokens, read each person where they may appear."""

    def split(layer: nn.Module, args: tuple, kwargs: dict[str, Any], output: torch.Tensor) -> torch.Tensor | None:
        if net.bound is not reading or reading.regions is None:  # the forward of another call
            return None
        _, *people = reading.tokens
        masks = torch.stack(reading.regions.at(args[0].shape[1]))
        shares = masks / masks.sum(0).clamp(min=1)
        found = output * (1 - shares.sum(0))
        for tokens, share in zip(people, shares, strict=True):
            found = found + share * layer.forward(*args, **{**kwargs, "encoder_hidden_states": tokens})
        return found

    if reading.regions is None:
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
