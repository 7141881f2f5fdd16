"""LoRA of an attention layer's own maps, as in IP-Adapter-FaceID, applied by forward hooks."""

from __future__ import annotations

from functools import partial
from typing import cast

import torch
from diffusers.models.attention_processor import Attention
from torch import nn

from .hooks import HookOwner, remove_hooks

MAPS = ("to_q", "to_k", "to_v", "to_out")


class LowRank(nn.Module):
    """`up(down(x))`, without an alpha, as in the published files."""

    def __init__(self, in_dim: int, rank: int, out_dim: int) -> None:
        super().__init__()
        self.down = nn.Linear(in_dim, rank, bias=False)
        self.up = nn.Linear(rank, out_dim, bias=False)
        nn.init.normal_(self.down.weight, std=1 / rank)
        nn.init.zeros_(self.up.weight)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(..., in_dim) → (..., out_dim)."""
        return self.up(self.down(x))


class LayerLoRA(nn.Module):
    """One `LowRank` for each of an attention layer's four maps.

    Args:
        inner_dim: Width of the layer.
        context_dim: Input width of keys and values: `inner_dim` in self-attention, the text's in cross-attention.
        rank: Rank of each `LowRank`.
    """

    def __init__(self, inner_dim: int, context_dim: int, rank: int) -> None:
        super().__init__()
        self.to_q = LowRank(inner_dim, rank, inner_dim)
        self.to_k = LowRank(context_dim, rank, inner_dim)
        self.to_v = LowRank(context_dim, rank, inner_dim)
        self.to_out = LowRank(inner_dim, rank, inner_dim)


class LoRAHooks(HookOwner):
    """Forward hooks that add a `LayerLoRA` to the outputs of the layer's maps while its scale is not zero.

    The hooks are on the base layers below a PEFT LoRA, which stay the same modules when the LoRA is added, fused or
    removed. Maps that diffusers fuses (`to_qkv`, `to_kv`) get the sum for each of their parts.
    """

    def __init__(self, layer: Attention, lora: LayerLoRA, token: str) -> None:
        super().__init__(token)
        self.scale = 0.0
        self._lora = lora
        self._hooked: list[nn.Module] = []
        layer.register_forward_pre_hook(self._hook_maps)
        self._hook_maps(layer, ())

    def _hook_maps(self, layer: nn.Module, _: tuple[object, ...]) -> None:
        """Hook the layer's maps, again when they have been replaced."""
        maps = _maps(layer)
        if len(maps) == len(self._hooked) and all(a is b for a, b in zip(maps.values(), self._hooked, strict=True)):
            return
        for module in (*self._hooked, *maps.values()):
            remove_hooks(module, self.token, LoRAHooks)
        self._hooked = list(maps.values())
        for parts, module in maps.items():
            module.register_forward_hook(
                partial(self._add, parts), prepend=True
            )  # before `AttentionHooks` keeps the query

    def _add(
        self, parts: tuple[str, ...], _: nn.Module, args: tuple[torch.Tensor, ...], output: torch.Tensor
    ) -> torch.Tensor | None:
        if self.scale == 0:
            return None
        found = [getattr(self._lora, part)(args[0]) for part in parts]
        return output + self.scale * (found[0] if len(found) == 1 else torch.cat(found, -1))


def _maps(layer: nn.Module) -> dict[tuple[str, ...], nn.Module]:
    """The parts that each map of the layer computes → the map, below a PEFT LoRA."""
    named: dict[tuple[str, ...], nn.Module] = {(name,): getattr(layer, name) for name in MAPS}
    named["to_out",] = cast(nn.ModuleList, named["to_out",])[0]
    for name, parts in (("to_qkv", MAPS[:3]), ("to_kv", MAPS[1:3])):
        if isinstance(getattr(layer, name, None), nn.Module):
            named[parts] = getattr(layer, name)
    return {parts: getattr(module, "base_layer", module) for parts, module in named.items()}
