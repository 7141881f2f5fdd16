"""`IdentityNet`: the ControlNet of InstantID (arXiv 2401.07519), which reads identity tokens instead of text."""

from __future__ import annotations

import os
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
from .hub_mixin import HubMixin
from .net_conditioning import IdentityNetHooks, NetConditioning, Residuals, regional_attention
from .regions import make_regions
from .state import active
from .tokens import BatchLayout, IdentityTokens


class IdentityNet(HubMixin, ControlNetModel):  # pyright: ignore[reportIncompatibleMethodOverride]
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
        with active(self, conditioning), regional_attention(self, conditioning):
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
