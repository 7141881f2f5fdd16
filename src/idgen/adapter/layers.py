"""The cross-attention layers of a UNet, by path."""

from __future__ import annotations

from collections.abc import Mapping

from diffusers.models.attention_processor import Attention
from torch import nn
from torch._dynamo import reset_code

from ..errors import AdapterError


def cross_attention_layers(unet: nn.Module) -> dict[str, Attention]:
    """Path → layer, for every cross-attention layer of a UNet.

    Raises:
        AdapterError: There is none.
    """
    layers = {
        path: module
        for path, module in unet.named_modules()
        if isinstance(module, Attention) and path.endswith("attn2") and module.is_cross_attention
    }
    if not layers:
        raise AdapterError(f"{type(unet).__name__} has no cross-attention layers.")
    return layers


def module_key(path: str) -> str:
    """A layer's path as the name of a module, which must not contain dots."""
    return path.replace(".", "/")


def self_attention_path(path: str) -> str:
    """Path of the self-attention layer in the same transformer block as a cross-attention layer."""
    return path.removesuffix("attn2") + "attn1"


def forget_compiled(network: nn.Module) -> None:
    """Recompile a compiled network at its next call, because compiled code does not notice new or removed hooks.

    Only the code of the classes of the network's modules is reset.
    """
    for kind in {type(module) for module in network.modules()}:
        if (code := getattr(kind.forward, "__code__", None)) is not None:
            reset_code(code)


def base_name(layers: Mapping[str, int], cross_attention_dim: int) -> str:
    """The name and size of the base model with these layers."""
    families = {(16, 768): "SD1.5", (16, 1024): "SD2", (70, 2048): "SDXL", (60, 1280): "the SDXL refiner"}
    size = f"{len(layers)} cross-attention layers of width {cross_attention_dim}"
    family = families.get((len(layers), cross_attention_dim))
    return f"{family} ({size})" if family else f"a UNet with {size}"
