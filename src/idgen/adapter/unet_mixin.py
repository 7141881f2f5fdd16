"""The part of `IdentityAdapter` that concerns UNets: attaching, scales, and activation for a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from diffusers.configuration_utils import ConfigMixin
from diffusers.models.modeling_utils import ModelMixin
from diffusers.utils.torch_utils import unwrap_module
from torch import nn

from ..errors import AdapterError
from ..faces.expression import EXPRESSION
from .attachment import Attachment, attachment_to, attachments
from .conditioning import Conditioning
from .fusion import Fusion
from .guard import refuse_blocked
from .projection import Projection
from .scale import Scale, ScaleSchedule, check_scale, in_blocks
from .state import active, in_use
from .tokens import BatchLayout, IdentityTokens


class UNetMixin(ModelMixin, ConfigMixin):
    """Attaches an adapter to UNets and activates identity conditioning."""

    to_tokens: Projection
    branches: nn.ModuleDict
    loras: nn.ModuleDict
    places: nn.Embedding | None
    _scale: Scale = 1.0
    _lora_scale: Scale | None = 1.0

    @property
    def reads_expression(self) -> bool:
        """Whether the adapter reads the expression of a photo (`ExpressionEncoder`), not the person."""
        return self.config["encoder"] == EXPRESSION

    @property
    def is_attached(self) -> bool:
        """Whether the adapter is attached to a UNet."""
        return bool(attachments(self))

    def is_attached_to(self, unet: nn.Module) -> bool:
        """Whether the adapter is attached to this UNet."""
        return attachment_to(self, unwrap_module(unet)) is not None

    def attach(self, unet: nn.Module) -> None:
        """Attach the adapter to a UNet. The UNet's output does not change by a bit until `activate`.

        Several adapters can be attached to one UNet, and one adapter to several UNets.

        Raises:
            AdapterError: The adapter is already attached to this UNet.
            BaseMismatchError: The UNet has other layers than the one that this adapter was made for.
        """
        if self.is_attached_to(unet):
            raise AdapterError("The adapter is already attached to this UNet; call detach() first.")
        Attachment(unwrap_module(unet), self)

    def detach(self) -> None:
        """Detach the adapter from all UNets, which are then as before; does nothing when not attached.

        Raises:
            AdapterError: A call is using the adapter.
        """
        if in_use(self):
            raise AdapterError("The adapter cannot be detached while a call is using it.")
        for attachment in attachments(self):
            attachment.remove()

    @property
    def scale(self) -> Scale:
        """Strength of identity conditioning: a number, a value per block, or a `ScaleSchedule`."""
        return self._scale

    @scale.setter
    def scale(self, scale: Scale) -> None:
        self.check_scale(scale)
        self._scale = scale

    def check_scale(self, scale: Scale) -> None:
        """Raise AdapterError if this is not a valid scale for this adapter."""
        check_scale(scale, self._acts_in)
        blocks = scale.scale if isinstance(scale, ScaleSchedule) else scale
        if isinstance(blocks, Mapping) and self.to_tokens.fuses_text:
            raise AdapterError("This adapter changes the prompt, which all blocks read; pass one number as the scale.")

    @property
    def lora_scale(self) -> Scale | None:
        """Strength of the adapter's LoRA, if it has one; `None` follows `scale`. Published files are made for 1."""
        return self._lora_scale

    @lora_scale.setter
    def lora_scale(self, scale: Scale | None) -> None:
        if scale is not None:
            check_scale(scale, self._acts_in)
        self._lora_scale = scale

    @contextmanager
    def activate(
        self,
        people: Sequence[IdentityTokens],
        num_images: int,
        *,
        masks: Sequence[torch.Tensor] | None = None,
        shown: torch.Tensor | None = None,
        scale: Callable[[], Scale] | None = None,
        layout: Callable[[], BatchLayout] | None = None,
        progress: Callable[[float], float] = lambda timestep: 1 - timestep / 1000,
        fusion: Fusion | None = None,
    ) -> Iterator[None]:
        """Activate identity conditioning for the UNet calls inside the `with`, in this thread and context only.

        Keys and values of all layers are computed once, at the beginning.

        Args:
            people: The tokens of each person in the image, from `encode`; without masks from left to right, if the
                adapter is `ordered`.
            num_images: Images that are generated at once, which is the UNet's batch size without guidance.
            masks: Where each person may appear, (height, width) or (images, height, width) in [0, 1] for each; any
                size. Without masks, an adapter that was trained so places the people itself.
            shown: (images, people), whether a person is in an image, for people without masks; all by default.
            scale: Called at each forward; the adapter's `scale` if not given.
            layout: Called at each forward: which parts of the UNet's batch are conditional. If not given, a batch of
                `num_images` is conditional, and one of twice as many has the negative half first.
            progress: Timestep → progress in [0, 1], for a `ScaleSchedule`.
            fusion: Factors on text and identity for each image, in training without guidance; see `RandomFusion`.

        Raises:
            AdapterError: The adapter is not attached, the numbers of people, masks and images do not fit together, or
                there are more people without masks than `max_people` in the adapter's configuration.
            BlockedIdentityError: The UNet's blocklist refuses a person.
        """
        attached = self._attachments_or_raise()
        self._check_activation(people, masks, fusion)
        conditioning = Conditioning(
            self.branches,
            attached[0].heads,
            list(attached[0].lora_paths),
            people if masks is not None else self._in_places(people, shown),
            num_images,
            scale=scale or (lambda: self.scale),
            lora_scale=lambda: self.lora_scale,
            masks=masks,
            shown=shown,
            layout=layout,
            progress=progress,
            fusion=fusion,
            ortho=self.config["ortho"],
            num_zero=self.config["num_zero"],
        )
        with active(self, conditioning):
            try:
                yield
            finally:
                for attachment in attached:
                    attachment.release(conditioning)

    def _in_places(self, people: Sequence[IdentityTokens], shown: torch.Tensor | None) -> Sequence[IdentityTokens]:
        """The people with the vectors of their places, in images of several people without masks.

        Vectors are times √dim, as embeddings of the Transformer (arXiv 1706.03762, section 3.4), so that they learn
        at a rate that fits the size of tokens.

        Args:
            people: From left to right.
            shown: (images, people), whether a person is in an image.
        """
        if self.places is None or len(people) == 1:
            return people
        shown = torch.ones(1, len(people), dtype=torch.bool) if shown is None else shown
        places = (shown.cumsum(1) - 1).clamp(min=0).to(self.places.weight.device)
        factor = self.places.embedding_dim**0.5 * (shown.sum(1) > 1).to(places)
        vectors = self.places(places) * factor[:, None, None]
        return [replace(p, tokens=p.tokens + vectors[:, i, None].to(p.tokens)) for i, p in enumerate(people)]

    @property
    def _acts_in(self) -> list[str]:
        """Paths of the cross-attention layers in the adapter's blocks."""
        return in_blocks(self.config["layers"], self.config["blocks"])

    @contextmanager
    def deactivate(self) -> Iterator[None]:
        """Deactivate identity conditioning inside the `with`, also inside that of `activate`."""
        with active(self, None):
            yield

    def _attachments_or_raise(self) -> list[Attachment]:
        if attached := attachments(self):
            return attached
        raise AdapterError("The adapter is not attached to a UNet; call attach(unet) first.")

    def _check_activation(
        self, people: Sequence[IdentityTokens], masks: Sequence[torch.Tensor] | None, fusion: Fusion | None
    ) -> None:
        """Raise if the adapter cannot draw these people; see `activate`."""
        if fusion is not None and self.config["placement"] != "parallel":
            raise AdapterError("Random fusion weights text against identity, which needs placement 'parallel'.")
        # ortho_v2 reads the face tokens of one person
        most = 1 if self.config["ortho"] == "ortho_v2" else self.config["max_people"]
        if masks is None and len(people) > most:
            raise AdapterError(
                f"id_masks is required for {len(people)} people in one image: one mask per person. This adapter was "
                f"trained to place at most {most} without masks (max_people)."
            )
        for person in people:
            self._refuse_blocked(person.id_embeds)

    def _refuse_blocked(self, id_embeds: torch.Tensor | None) -> None:
        """Ask the UNets' blocklists about a person. An expression is nobody's."""
        if self.reads_expression:
            return
        unets = [attachment.module for attachment in attachments(self)]
        refuse_blocked(unets, id_embeds, encoder=self.config["encoder"], normalised=self.config["normalised"])
