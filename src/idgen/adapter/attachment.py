"""An adapter's tie to one UNet: the hooks on its layers, and what they are told for each call."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import nn

from ..errors import AdapterError, BaseMismatchError
from .attention import Binding, IdentityBranch, Regions
from .fusion import Fusion
from .layers import base_name, cross_attention_layers, forget_compiled, module_key, self_attention_path
from .lora import LayerLoRA, LoRABinding
from .persons import Person, keys_values
from .scale import Scale, ScaleSchedule, layer_scale


class Attachment:
    """Hooks on a UNet that let persons act. Until `begin`, and after `end`, nothing changes by a bit.

    Args:
        unet: A `UNet2DConditionModel` of SD or SDXL.
        branches: An `IdentityBranch` for each cross-attention layer, by `module_key`.
        loras: A `LayerLoRA` for attention layers, by `module_key`; may be empty.
        layers: Path → inner dimension of the layers that the branches were made for.
        cross_attention_dim: Width of the tokens.

    Raises:
        BaseMismatchError: The UNet has other layers.
    """

    def __init__(
        self,
        unet: nn.Module,
        branches: nn.ModuleDict,
        loras: nn.ModuleDict,
        layers: Mapping[str, int],
        cross_attention_dim: int,
    ) -> None:
        cross = cross_attention_layers(unet)
        found = {path: layer.inner_dim for path, layer in cross.items()}
        width = {layer.cross_attention_dim for layer in cross.values()}
        if found != dict(layers) or width != {cross_attention_dim}:
            raise BaseMismatchError(
                f"The adapter was made for {base_name(layers, cross_attention_dim)}, but the pipeline's UNet is "
                f"{base_name(found, *width)}."
            )
        self.unet = unet
        self._branches = branches
        self._loras: dict[str, LoRABinding] = {}
        for path in [p for at in cross for p in (self_attention_path(at), at)] if len(loras) else []:
            lora = cast(LayerLoRA, loras[module_key(path)])
            self._loras[path] = LoRABinding(cast(Any, unet.get_submodule(path)), lora)
        self._bindings = {path: Binding(layer) for path, layer in cross.items()}
        self._handle = unet.register_forward_pre_hook(self._before_unet, with_kwargs=True)
        self._scales: tuple[Scale, Scale] = (1.0, 1.0)
        self._num_train_timesteps = 1000
        self._drawing = False
        forget_compiled(unet)

    def remove(self) -> None:
        """Leave the UNet as it was."""
        for binding in (*self._bindings.values(), *self._loras.values()):
            binding.remove()
        self._handle.remove()
        forget_compiled(self.unet)

    def begin(
        self,
        persons: Sequence[Person],
        pictures: int,
        scale: Scale,
        lora_scale: Scale,
        masks: Sequence[torch.Tensor] | None,
        perturbed: bool,
        fusion: Fusion | None,
        num_train_timesteps: int,
    ) -> None:
        """Let persons act from now on; see `IdentityAdapter.drawing`."""
        if self._drawing:
            raise AdapterError("The adapter is drawing already; a pipeline serves one call at a time.")
        if masks is not None and len(masks) != len(persons):
            raise AdapterError(f"{len(persons)} people need as many masks, not {len(masks)}.")
        if masks is None and len(persons) > 1:
            raise AdapterError(f"{len(persons)} people in one picture need a mask each (id_masks).")
        regions = Regions([mask.to(persons[0].tokens) for mask in masks]) if masks is not None else None
        self._num_train_timesteps = num_train_timesteps
        self._scales = scale, lora_scale
        self._drawing = True
        try:
            for path, binding in self._bindings.items():
                branch = cast(IdentityBranch, self._branches[module_key(path)])
                made = keys_values(branch, persons, binding.heads, pictures, perturbed, fusion)
                binding.set(made, regions, layer_scale(scale, path, 0.0), None if fusion is None else fusion.text)
        except BaseException:
            self.end()
            raise
        for path, lora in self._loras.items():
            lora.scale = layer_scale(lora_scale, path, 0.0)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Let nobody act inside the `with`, then go on."""
        kept = [(binding, binding.scaled) for binding in self._bindings.values()]
        scales = [(lora, lora.scale) for lora in self._loras.values()]
        try:
            for binding, _ in kept:
                binding.scaled = {}
            for lora, _ in scales:
                lora.scale = 0.0
            yield
        finally:
            for binding, scaled in kept:
                binding.scaled = scaled
            for lora, scale in scales:
                lora.scale = scale

    def end(self) -> None:
        """Let nobody act."""
        self._drawing = False
        for binding in self._bindings.values():
            binding.clear()
        for lora in self._loras.values():
            lora.scale = 0.0

    def _before_unet(self, unet: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        if not self._drawing:
            return
        first = next(iter(self._bindings.values()))
        if first.regions is not None:
            sample = args[0] if args else kwargs["sample"]
            first.regions.fit(*sample.shape[-2:])
        scale, lora_scale = self._scales
        if isinstance(scale, ScaleSchedule) or isinstance(lora_scale, ScaleSchedule):
            timestep = args[1] if len(args) > 1 else kwargs["timestep"]
            timestep = float(timestep.flatten()[0] if isinstance(timestep, torch.Tensor) else timestep)
            progress = 1 - timestep / self._num_train_timesteps
            for path, binding in self._bindings.items():
                binding.rescale(layer_scale(scale, path, progress))
            for path, lora in self._loras.items():
                lora.scale = layer_scale(lora_scale, path, progress)
