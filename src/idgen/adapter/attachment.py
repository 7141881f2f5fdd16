"""An adapter's tie to one UNet: the hooks on its layers."""

from __future__ import annotations

import uuid
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, cast
from weakref import WeakKeyDictionary, WeakSet

from torch import nn

from ..errors import BaseMismatchError
from .attention import Binding
from .call import ForwardBinding, lock_of
from .condition import Acting, Condition
from .hooks import owner_of, remove_hooks
from .layers import base_name, cross_attention_layers, forget_compiled, module_key, self_attention_path
from .lora import LayerLoRA, LoRABinding

if TYPE_CHECKING:
    from .joining import Joining

_attached: WeakKeyDictionary[object, WeakSet[nn.Module]] = WeakKeyDictionary()
"""Adapter → the UNets with its hooks. The UNets own the hooks, and nothing keeps a UNet alive but its users."""


class Attachment(ForwardBinding):
    """Hooks on a UNet that bind an adapter's active `Condition` for the time of each forward.

    Args:
        unet: A `UNet2DConditionModel` of SD or SDXL.
        adapter: With a branch for each cross-attention layer, and a `LayerLoRA` for attention layers if it has any.

    Raises:
        BaseMismatchError: The UNet has other layers than those that the adapter was made for.
    """

    def __init__(self, unet: nn.Module, adapter: Joining) -> None:
        cross = cross_attention_layers(unet)
        _check_base(cast(Any, adapter).config, cross)
        with lock_of(unet):
            super().__init__(unet, adapter, uuid.uuid4().hex)
            self._loras: dict[str, LoRABinding] = {}
            for path in [p for at in cross for p in (self_attention_path(at), at)] if len(adapter.loras) else []:
                lora = cast(LayerLoRA, adapter.loras[module_key(path)])
                self._loras[path] = LoRABinding(cast(Any, unet.get_submodule(path)), lora, self.token)
            self._bindings = {path: Binding(layer, self.token) for path, layer in cross.items()}
        _attached.setdefault(adapter, WeakSet()).add(unet)
        forget_compiled(unet)

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy of the UNet has a copy of this attachment, and of the adapter."""
        super().__setstate__(state)
        _attached.setdefault(self.owner, WeakSet()).add(self.module)

    @property
    def heads(self) -> dict[str, int]:
        """Layer path → attention heads."""
        return {path: binding.heads for path, binding in self._bindings.items()}

    @property
    def lora_paths(self) -> Iterable[str]:
        """Paths of the layers with a LoRA of the adapter."""
        return self._loras.keys()

    def remove(self) -> None:
        """Leave the UNet as it was, also where layers have been replaced or copied since."""
        with lock_of(self.module):
            for module in self.module.modules():
                remove_hooks(module, self.token)
        _attached[self.owner].discard(self.module)
        forget_compiled(self.module)

    def bind(self, state: Condition, args: tuple, kwargs: dict[str, Any]) -> Acting:
        """See `ForwardBinding`."""
        sample = args[0] if args else kwargs["sample"]
        acting = state.at(len(sample), args[1] if len(args) > 1 else kwargs["timestep"])
        if acting.regions is not None:
            acting.regions.fit(*sample.shape[-2:])
        return acting

    def apply(self, bound: Acting | None) -> None:
        """See `ForwardBinding`."""
        for path, binding in self._bindings.items():
            if bound is None:
                binding.persons = binding.regions = binding.text = None
            else:
                binding.persons, binding.regions, binding.text = bound.persons.get(path), bound.regions, bound.text
        for path, lora in self._loras.items():
            lora.scale = 0.0 if bound is None else bound.lora[path]


def attachments(adapter: Joining) -> list[Attachment]:
    """All attachments of an adapter."""
    found = (attachment_to(adapter, unet) for unet in list(_attached.get(adapter, ())))
    return [attachment for attachment in found if attachment is not None]


def attachment_to(adapter: Joining, unet: nn.Module) -> Attachment | None:
    """The attachment of an adapter to a UNet."""
    owners = map(owner_of, unet._forward_pre_hooks.values())
    return next((each for each in owners if isinstance(each, Attachment) and each.owner is adapter), None)


def _check_base(config: Mapping[str, Any], cross: Mapping[str, Any]) -> None:
    layers, width = config["layers"], config["cross_attention_dim"]
    found = {path: layer.inner_dim for path, layer in cross.items()}
    widths = {layer.cross_attention_dim for layer in cross.values()}
    if any(layer.norm_q is not None or layer.norm_k is not None for layer in cross.values()):
        raise BaseMismatchError("UNets whose layers normalise queries and keys are not supported.")
    if found != dict(layers) or widths != {width}:
        raise BaseMismatchError(
            f"The adapter was made for {base_name(layers, width)}, but the pipeline's UNet is "
            f"{base_name(found, *widths)}."
        )
