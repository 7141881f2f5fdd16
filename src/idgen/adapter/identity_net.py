"""`IdentityNet`: the ControlNet of InstantID (arXiv 2401.07519), which reads identity tokens instead of text."""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Self, cast

import torch
from diffusers.models.controlnets.controlnet import ControlNetModel, ControlNetOutput
from diffusers.models.modeling_utils import ModelMixin as ModelMixin  # diffusers looks here when it opens a pipeline
from torch import nn

from ..checkpoints import native
from ..checkpoints.building import build
from ..errors import AdapterError
from .hooks import ForwardHooks, owner_of
from .layers import cross_attention_layers, forget_compiled
from .regions import Regions, make_regions
from .state import active, lock_of
from .tokens import BatchLayout, IdentityTokens, default_layout

Residuals = tuple[list[torch.Tensor], torch.Tensor]


class IdentityNet(ControlNetModel):
    """A ControlNet that reads identity tokens and a drawing of five landmarks.

    It is used as any ControlNet, alone or in a list with others: `pipeline(controlnet=net)`. During a call, a pipeline
    with an identity adapter gives it the adapter's tokens; other ControlNets in the list read text as usual.
    `IdentityNet.from_unet(pipe.unet)` makes a new one for any base model, to be trained.
    """

    conditioning: NetConditioning | None = None
    """The conditioning of the running forward, set by `IdentityNetHooks`."""

    @contextmanager
    def activate(
        self,
        people: Sequence[IdentityTokens],
        num_images: int,
        *,
        masks: Sequence[torch.Tensor] | None = None,
        shown: torch.Tensor | None = None,
        layout: Callable[[], BatchLayout] | None = None,
        interval: int = 1,
    ) -> Iterator[None]:
        """Activate identity conditioning: inside the `with` the net reads tokens instead of `encoder_hidden_states`.

        It holds in this thread and context only.

        Args:
            people: The tokens of each person in the image, from `IdentityAdapter.encode`.
            num_images: Images that are generated at once.
            masks: Where each person may appear, (height, width) or (images, height, width) in [0, 1] for each;
                elsewhere the net reads the negative tokens. Without masks it reads the tokens of all people in a row.
            shown: (images, people), whether a person is in an image; for one who is not, the net reads the negative
                tokens. All by default.
            layout: Called at each forward: which parts of the net's batch are conditional. If not given, a batch of
                `num_images` is conditional, and one of twice as many has the negative half first.
            interval: Compute the residuals in one of every `interval` calls and reuse them in the others.

        Raises:
            AdapterError: People and masks do not fit together, the tokens have another width, or `interval` < 1.
        """
        if interval < 1:
            raise AdapterError(f"control_interval must be >= 1, got {interval}.")
        width = cast(int, self.config["cross_attention_dim"])
        if people[0].tokens.shape[-1] != width:
            raise AdapterError(
                f"The IdentityNet reads tokens of width {width}, got width {people[0].tokens.shape[-1]}."
            )
        regions = make_regions(masks, len(people), num_images, people[0].tokens)
        hooks = IdentityNetHooks.of(self)
        conditioning = NetConditioning(people, num_images, layout, regions, interval, shown)
        with active(self, conditioning), _regional_attention(self, conditioning):
            try:
                yield
            finally:
                hooks.release(conditioning)

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
        """As `ControlNetModel`, but it reads the active identity tokens instead of `encoder_hidden_states`.

        Raises:
            AdapterError: No identity is active. The net was not trained to read text.
        """
        conditioning = self.conditioning
        if conditioning is None:
            raise AdapterError(
                "An IdentityNet reads an identity, not text: call load_id_adapter, then pass id_image or id_embeds."
            )

        def compute(scale: float) -> Residuals:
            options = {**kwargs, "guess_mode": guess_mode, "return_dict": False}
            found = ControlNetModel.forward(self, sample, timestep, tokens, controlnet_cond, scale, *args, **options)
            return cast(Residuals, found)

        negative, *people = conditioning.tokens
        tokens = torch.cat(people, 1) if conditioning.regions is None else negative
        down, mid = conditioning.residuals(compute, conditioning_scale, (sample.shape, guess_mode))
        return ControlNetOutput(tuple(down), mid) if return_dict else (down, mid)  # pyright: ignore

    def save_pretrained(self, save_directory: str | os.PathLike[str], **kwargs: Any) -> None:  # pyright: ignore
        """Write `config.json` and the weights as safetensors, atomically.

        Args:
            save_directory: Created if it does not exist.
            kwargs: As in diffusers.
        """
        native.save_pretrained(super().save_pretrained, save_directory, **kwargs)

    def push_to_hub(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, repo_id: str, *, private: bool | None = None, token: str | None = None, **kwargs: Any
    ) -> str:
        """Save to a hub repository; arguments and result as in `IdentityAdapter.push_to_hub`."""
        return native.push_to_hub(self, repo_id, private=private, token=token, **kwargs)

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, pretrained_model_name_or_path: str | os.PathLike[str], **kwargs: Any
    ) -> Self:
        """Load a net from a folder, from the hub (`"InstantX/InstantID", subfolder="ControlNetModel"`), or from a file
        that `idgen convert` has written.

        Raises:
            CheckpointError: It cannot be found, is not safetensors, or has missing or unexpected tensors.
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
def _regional_attention(net: IdentityNet, conditioning: NetConditioning) -> Iterator[None]:
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
