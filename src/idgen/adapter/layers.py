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
        raise AdapterError(f"{type(unet).__name__} has no cross-attention layer that an identity could join.")
    return layers


def module_key(path: str) -> str:
    """A layer's path as the name of a module, which cannot hold dots."""
    return path.replace(".", "/")


def self_attention_path(path: str) -> str:
    """Path of the self-attention layer in the same transformer block as a cross-attention layer."""
    return path.removesuffix("attn2") + "attn1"


def forget_compiled(network: nn.Module) -> None:
    """Have a compiled network compiled again at its next call: compiled code does not notice hooks that come or go.

    Only the code of the network's own modules is reset, which other networks of the same classes share.
    """
    for kind in {type(module) for module in network.modules()}:
        if (code := getattr(kind.forward, "__code__", None)) is not None:
            reset_code(code)


def base_name(layers: Mapping[str, int], cross_attention_dim: int) -> str:
    """What a base model is called, or how large it is."""
    families = {(16, 768): "SD1.5", (16, 1024): "SD2", (70, 2048): "SDXL", (60, 1280): "the SDXL refiner"}
    size = f"{len(layers)} cross-attention layers of width {cross_attention_dim}"
    family = families.get((len(layers), cross_attention_dim))
    return f"{family} ({size})" if family else f"a UNet with {size}"
