"""The hooks of an adapter on one UNet."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary, WeakSet

from diffusers.models.attention_processor import Attention
from torch import nn

from ..errors import AdapterError, BaseMismatchError
from .attention import AttentionHooks
from .branch import BranchHooks
from .conditioning import Conditioning, ForwardConditioning
from .gated import GatedBranch, GatedHooks
from .hooks import ForwardHooks, owner_of, remove_hooks
from .layer_lora import LayerLoRA, LoRAHooks
from .layers import base_name, cross_attention_layers, forget_compiled, module_key, self_attention_path
from .state import lock_of

if TYPE_CHECKING:
    from .unet_mixin import UNetMixin

_attached: WeakKeyDictionary[object, WeakSet[nn.Module]] = WeakKeyDictionary()
"""Adapter → the UNets with its hooks. The UNets own the hooks; nothing here keeps a UNet alive."""


class Attachment(ForwardHooks[Conditioning, ForwardConditioning]):
    """Hooks on a UNet that apply an adapter's active `Conditioning` during each forward.

    Args:
        unet: A `UNet2DConditionModel` of SD or SDXL.
        adapter: With a branch, a `LayerLoRA`, both or neither for each cross-attention layer.

    Raises:
        BaseMismatchError: The UNet has other layers than those that the adapter was made for.
    """

    def __init__(self, unet: nn.Module, adapter: UNetMixin) -> None:
        cross = cross_attention_layers(unet)
        _check_base(adapter.config, cross)
        with lock_of(unet):
            super().__init__(unet, adapter, uuid.uuid4().hex)
            self._loras: dict[str, LoRAHooks] = {}
            self._kept: dict[int, ForwardConditioning] = {}  # by batch size
            for path in [p for at in cross for p in (self_attention_path(at), at) if module_key(p) in adapter.loras]:
                lora = cast(LayerLoRA, adapter.loras[module_key(path)])
                self._loras[path] = LoRAHooks(cast(Attention, unet.get_submodule(path)), lora, self.token)
            self._layers = {
                path: _hook_layer(unet, adapter, path, layer, self.token)
                for path, layer in cross.items()
                if module_key(path) in adapter.branches
            }
        _attached.setdefault(adapter, WeakSet()).add(unet)
        forget_compiled(unet)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy of the UNet has a copy of this attachment, and of the adapter."""
        super().__setstate__({**state, "_kept": {}})
        _attached.setdefault(self.owner, WeakSet()).add(self.module)

    @property
    def heads(self) -> dict[str, int]:
        """Layer path → attention heads."""
        return {path: hooks.heads for path, hooks in self._layers.items()}

    @property
    def lora_paths(self) -> Iterable[str]:
        """Paths of the layers with a LoRA of the adapter."""
        return self._loras.keys()

    def remove(self) -> None:
        """Remove all hooks from the UNet, also from layers that have been replaced or copied since."""
        with lock_of(self.module):
            for module in self.module.modules():
                remove_hooks(module, self.token)
        _attached[self.owner].discard(self.module)
        forget_compiled(self.module)

    def bind(self, state: Conditioning, args: tuple[Any, ...], kwargs: dict[str, Any]) -> ForwardConditioning:
        """See `ForwardHooks`."""
        sample = args[0] if args else kwargs["sample"]
        conditioning = state.at(len(sample), args[1] if len(args) > 1 else kwargs["timestep"])
        if conditioning.regions is not None:
            conditioning.regions.fit(*sample.shape[-2:])
        return conditioning

    def apply(self, bound: ForwardConditioning | None) -> None:
        """See `ForwardHooks`.

        Raises:
            AdapterError: With gradient checkpointing, an earlier forward of this batch size had another scale.
        """
        if self._held is None:  # nothing of a call is left, also for copies
            self._kept.clear()
        if bound is not None and self._kept.setdefault(bound.batch, bound) is not bound:
            raise AdapterError(
                "With gradient checkpointing, forwards with different scales cannot share a backward pass."
            )
        for path, hooks in self._layers.items():
            people = {batch: kept.people[path] for batch, kept in self._kept.items() if path in kept.people}
            hooks.apply(people or None if bound is not None else None, bound, path)
        for path, lora in self._loras.items():
            lora.scale = 0.0 if bound is None else bound.lora_scale[path]


def attachments(adapter: UNetMixin) -> list[Attachment]:
    """All attachments of an adapter."""
    found = (attachment_to(adapter, unet) for unet in list(_attached.get(adapter, ())))
    return [attachment for attachment in found if attachment is not None]


def attachment_to(adapter: UNetMixin, unet: nn.Module) -> Attachment | None:
    """The attachment of an adapter to a UNet."""
    owners = map(owner_of, unet._forward_pre_hooks.values())
    return next((each for each in owners if isinstance(each, Attachment) and each.owner is adapter), None)


def _hook_layer(unet: nn.Module, adapter: UNetMixin, path: str, layer: Attention, token: str) -> BranchHooks:
    branch = adapter.branches[module_key(path)]
    if isinstance(branch, GatedBranch):
        return GatedHooks(unet.get_submodule(path.removesuffix(".attn2")), branch, layer.heads, token)
    return AttentionHooks(layer, token, is_first=adapter.config["ortho"] is not None)


def _check_base(config: Mapping[str, Any], cross: Mapping[str, Attention]) -> None:
    layers, width = config["layers"], config["cross_attention_dim"]
    found = {path: layer.inner_dim for path, layer in cross.items()}
    widths = {layer.cross_attention_dim for layer in cross.values()}
    if any(layer.norm_q is not None or layer.norm_k is not None for layer in cross.values()):
        raise BaseMismatchError("UNets whose attention layers normalise queries and keys are not supported.")
    if found != dict(layers) or widths != {width}:
        raise BaseMismatchError(
            f"The adapter was made for {base_name(layers, width)}, but the pipeline's UNet is "
            f"{base_name(found, *widths)}."
        )
