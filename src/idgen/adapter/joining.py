"""How an adapter joins UNets and is activated for a call."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from diffusers.utils.torch_utils import unwrap_module
from torch import nn

from ..errors import AdapterError, BlockedIdentityError
from ..identity import Identity
from .attachment import Attachment, attachment_to, attachments
from .call import activate, in_use
from .condition import Condition
from .fusion import Fusion
from .guard import blocklist_of
from .persons import Person, Rows
from .scale import Scale, check_scale


class Joining(nn.Module):
    """The part of `IdentityAdapter` that concerns UNets."""

    branches: nn.ModuleDict
    loras: nn.ModuleDict
    _scale: Scale = 1.0
    _lora_scale: Scale | None = 1.0

    @property
    def is_attached(self) -> bool:
        """Whether the adapter is attached to a UNet."""
        return bool(attachments(self))

    def is_attached_to(self, unet: nn.Module) -> bool:
        """Whether the adapter is attached to this UNet."""
        return attachment_to(self, unwrap_module(unet)) is not None

    def attach(self, unet: nn.Module) -> None:
        """Join a UNet, beside others if there are any. Its output does not change by a bit until `drawing`.

        Raises:
            AdapterError: The adapter is attached to this UNet already.
            BaseMismatchError: The UNet has other layers than the one this adapter was made for.
        """
        if self.is_attached_to(unet):
            raise AdapterError("The adapter is attached already; detach it first.")
        Attachment(unwrap_module(unet), self)

    def detach(self) -> None:
        """Leave all UNets as they were; does nothing when not attached.

        Raises:
            AdapterError: A call is drawing with the adapter.
        """
        if in_use(self):
            raise AdapterError("The adapter cannot be detached while a call is drawing with it.")
        for attachment in attachments(self):
            attachment.remove()

    @property
    def scale(self) -> Scale:
        """How strongly the identity acts: a number, a value per block, or a `ScaleSchedule`."""
        return self._scale

    @scale.setter
    def scale(self, scale: Scale) -> None:
        self.check_scale(scale)
        self._scale = scale

    def check_scale(self, scale: Scale) -> None:
        """Raise AdapterError for what cannot be a scale of this adapter."""
        check_scale(scale, cast(Any, self).config["layers"])

    @property
    def lora_scale(self) -> Scale | None:
        """How strongly the adapter's LoRA acts, if it has one; `None` follows `scale`. Published files mean 1."""
        return self._lora_scale

    @lora_scale.setter
    def lora_scale(self, scale: Scale | None) -> None:
        if scale is not None:
            self.check_scale(scale)
        self._lora_scale = scale

    @contextmanager
    def drawing(
        self,
        persons: Sequence[Person],
        pictures: int,
        *,
        masks: Sequence[torch.Tensor] | None = None,
        scale: Callable[[], Scale] | None = None,
        rows: Callable[[], Rows] | None = None,
        progress: Callable[[float], float] = lambda timestep: 1 - timestep / 1000,
        fusion: Fusion | None = None,
    ) -> Iterator[None]:
        """Activate identity conditioning for the UNet calls inside the `with`, in this thread and context only.

        Keys and values of all layers are computed here, once.

        Args:
            persons: Everybody in the picture, from `person`.
            pictures: How many pictures are drawn at once, that is, the UNet's batch without guidance.
            masks: Where each person may appear, (height, width) in [0, 1] each; any size.
            scale: Called at each forward; `scale` of the adapter if not given.
            rows: Called at each forward: which parts of the UNet's batch are conditional. If not given, a batch of
                `pictures` is conditional, and one of twice as many has the negative half first.
            progress: Timestep → progress in [0, 1], for a `ScaleSchedule`.
            fusion: Factors on text and identity for each picture, in training without guidance; see `RandomFusion`.

        Raises:
            AdapterError: The adapter is not attached, or persons, masks and pictures do not fit together.
            BlockedIdentityError: The UNet's blocklist refuses a person.
        """
        attached = attachments(self)
        if not attached:
            raise AdapterError("The adapter is not attached to a UNet.")
        for person in persons:
            self._refuse_blocked(person.id_embeds)
        condition = Condition(
            self.branches,
            attached[0].heads,
            list(attached[0].lora_paths),
            persons,
            pictures,
            scale=scale or (lambda: self.scale),
            lora_scale=lambda: self.lora_scale,
            masks=masks,
            rows=rows,
            progress=progress,
            fusion=fusion,
        )
        with activate(self, condition):
            try:
                yield
            finally:
                for attachment in attached:
                    attachment.release(condition)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Deactivate identity conditioning inside the `with`, which may stand in a `drawing`."""
        with activate(self, None):
            yield

    def _refuse_blocked(self, id_embeds: torch.Tensor | None) -> None:
        found = [blocklist_of(attachment.module) for attachment in attachments(self)]
        for blocklist in [each for each in found if each is not None]:
            if id_embeds is None:
                raise BlockedIdentityError("The UNet has a blocklist: tokens without their id_embeds are refused.")
            for row in id_embeds.detach().float().cpu():
                photos = row.reshape(-1, row.shape[-1])
                photos = photos[photos.norm(dim=-1) > 0]  # zero stands for no identity
                if len(photos):
                    made_by = {
                        "encoder": cast(Any, self).config["encoder"],
                        "normalised": cast(Any, self).config["normalised"],
                    }
                    blocklist.check(Identity(embeddings=photos, **made_by))
