"""How the families of public files name the tensors of an adapter.

`LAYOUTS` is the table of all families. To add one, add its row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch

from ..adapter.placement import Placement
from ..errors import CheckpointError
from .layout import known_layers, numbered

Layers = Mapping[str, int]
"""Path → inner dimension of the cross-attention layers of a base model."""


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The names of one family.

    Attributes:
        projection: Part of the file with the projection: the first component of its names.
        layers: Parts with the tensors of attention layers.
        projections: Types of projections that this family has.
        layer_names: Layers, and whether there is a LoRA → name in the file → name in our state dict.
        find_layers: Tensors, and the layers of the user's base model if given → the layers that the file is for.
        renamed: Parts of names in the projection: in the file → ours.
        ignored: Ends of names that some files have and that nothing reads.
        placement: See `idgen.adapter.Placement`.
        is_flat: Whether a `.bin` file is one mapping of names, instead of one mapping for each part.
    """

    projection: str
    layers: tuple[str, ...]
    projections: tuple[str, ...]
    layer_names: Callable[[Layers, bool], dict[str, str]]
    find_layers: Callable[[Mapping[str, torch.Tensor], Layers], Layers]
    renamed: tuple[tuple[str, str], ...] = ()
    ignored: tuple[str, ...] = ()
    is_flat: bool = False
    placement: Placement = "parallel"

    def names(self, config: Mapping[str, Any], state: Iterable[str]) -> dict[str, str]:
        """Name in the file → name in our state dict.

        Args:
            config: Configuration of the adapter.
            state: The names of either, of which those of the projection are converted.
        """
        names = self.layer_names(config["layers"], bool(config.get("lora_rank")))
        for name in state:
            part, _, rest = name.partition(".")
            if part == self.projection:
                for theirs, ours in self.renamed:
                    rest = rest.replace(theirs, ours)
                names[name] = f"to_tokens.{rest}"
            elif part == "to_tokens":
                for theirs, ours in self.renamed:
                    rest = rest.replace(ours, theirs)
                names[f"{self.projection}.{rest}"] = name
        return names

    def select(self, state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
        """The tensors of a file that belong to the adapter."""
        parts = tuple(f"{part}." for part in (self.projection, *self.layers))
        return {name: tensor for name, tensor in state.items() if name.startswith(parts) and not self.ignores(name)}

    def ignores(self, name: str) -> bool:
        """Whether nothing reads this tensor of a file."""
        return bool(self.ignored) and name.endswith(self.ignored)


MAPS = ("q", "k", "v", "out")


def _branch_names(part: str, to_k: str, to_v: str, layers: Layers, _: bool = False) -> dict[str, str]:
    return {
        f"{part}.{number}.{theirs}.weight": f"branches.{path.replace('.', '/')}.{ours}.weight"
        for path, number in numbered(layers).items()
        for ours, theirs in (("to_k", to_k), ("to_v", to_v))
    }


def _ip_adapter_names(layers: Layers, lora: bool) -> dict[str, str]:
    names = _branch_names("ip_adapter", "to_k_ip", "to_v_ip", layers)
    for path, number in numbered(layers).items():
        cross = path.replace(".", "/")
        for key, index in ((cross.removesuffix("attn2") + "attn1", number - 1), (cross, number)) if lora else ():
            for part in MAPS:
                for way in ("down", "up"):
                    theirs = f"ip_adapter.{index}.to_{part}_lora.{way}.weight"
                    names[theirs] = f"loras.{key}.to_{part}.{way}.weight"
    return names


def _photomaker_names(layers: Layers, lora: bool) -> dict[str, str]:
    return {
        f"lora_weights.unet.{attention}.processor.to_{part}_lora.{way}.weight": (
            f"loras.{attention.replace('.', '/')}.to_{part}.{way}.weight"
        )
        for path in (layers if lora else ())
        for attention in (path.removesuffix("attn2") + "attn1", path)
        for part in MAPS
        for way in ("down", "up")
    }


def _gated_names(layers: Layers, _: bool = False) -> dict[str, str]:
    linear = ("linear", "attn.to_out.0", "ff.net.0.proj", "ff.net.2", "norm1", "norm2")
    names = [f"{layer}.{part}" for layer in linear for part in ("weight", "bias")]
    names += [*(f"attn.to_{part}.weight" for part in "qkv"), "alpha_attn", "alpha_dense"]
    return {
        f"{path}.processor.{name}": f"branches.{path.replace('.', '/')}.{name}" for path in layers for name in names
    }


def _counted(state: Mapping[str, torch.Tensor], base: Layers) -> Layers:
    """The layers of a file that numbers them: the base model's, or else those of SD1.5 or SDXL."""
    count = sum(name.endswith((".to_k_ip.weight", ".id_to_k.weight")) for name in state)
    return base if len(base) == count else known_layers(count)


def _gated(state: Mapping[str, torch.Tensor], _: Layers) -> Layers:
    """The layers of a file with gated layers, which names them."""
    end = ".processor.linear.weight"
    found = {name.removesuffix(end): tensor.shape[0] for name, tensor in state.items() if name.endswith(end)}
    if not found:
        raise CheckpointError("The file contains no gated layers ('….attn2.processor.linear.weight').")
    return found


def _named(state: Mapping[str, torch.Tensor], _: Layers) -> Layers:
    """The layers of a file that names them."""
    end = ".attn2.processor.to_q_lora.up.weight"
    found = {
        name.removeprefix("lora_weights.unet.").removesuffix(end) + ".attn2": tensor.shape[0]
        for name, tensor in state.items()
        if name.startswith("lora_weights.unet.") and name.endswith(end) and tensor.ndim == 2
    }
    if not found:
        raise CheckpointError("The file contains no LoRA of attention layers ('lora_weights.unet.….attn2.…').")
    return found


IP_ADAPTER = Layout(
    projection="image_proj",
    layers=("ip_adapter",),
    projections=("mlp", "resampler", "plus"),
    layer_names=_ip_adapter_names,
    find_layers=_counted,
)
PHOTOMAKER = Layout(
    projection="id_encoder",
    layers=("lora_weights",),
    projections=("photomaker", "photomaker-v2"),
    layer_names=_photomaker_names,
    find_layers=_named,
    renamed=(
        ("qformer_perceiver.token_proj.", "qformer_perceiver.proj."),
        ("qformer_perceiver.token_norm.", "qformer_perceiver.norm."),
    ),
    ignored=("id_encoder.vision_model.embeddings.position_ids",),
)
PULID = Layout(
    projection="id_adapter",
    layers=("id_adapter_attn_layers",),
    projections=("pulid", "idformer"),
    layer_names=partial(_branch_names, "id_adapter_attn_layers", "id_to_k", "id_to_v"),
    find_layers=_counted,
    is_flat=True,
)
FACT = Layout(
    projection="local_fac_prj",
    layers=("down_blocks", "up_blocks", "mid_block"),
    projections=("rows",),
    layer_names=_gated_names,
    find_layers=_gated,
    ignored=(".processor.ln.weight", ".processor.ln.bias"),  # the base model's own norm
    is_flat=True,
    placement="sequential",
)
LAYOUTS = (IP_ADAPTER, PHOTOMAKER, PULID, FACT)


def layout_in(parts: Collection[str]) -> Layout | None:
    """The layout of a file with these parts, the first components of its names."""
    return next((each for each in LAYOUTS if each.projection in parts and {*parts} & {*each.layers}), None)


def unpacked(state: Mapping[str, torch.Tensor]) -> Mapping[str, torch.Tensor]:
    """The tensors of a PuLID file that was repacked with IP-Adapter's names, by PuLID's own names."""
    if not {"image_proj.body.0.weight", "image_proj.id_embedding_mapping.0.weight"} & state.keys():
        return state
    own = (
        (r"^image_proj\.", "id_adapter."),
        (r"^ip_adapter\.(\d+)\.to_([kv])_ip\.", r"id_adapter_attn_layers.\1.id_to_\2."),
    )
    return {re.sub(*own[1], re.sub(*own[0], name)): tensor for name, tensor in state.items()}


def layout_of(config: Mapping[str, Any]) -> Layout:
    """The layout for an adapter with this configuration; that of IP-Adapter for projections of no family."""
    if config.get("placement") == FACT.placement:
        return FACT
    projection = config["projection"]
    kind = projection.get("type") if isinstance(projection, Mapping) else projection  # as version 0.1 wrote it
    return next((each for each in LAYOUTS if kind in each.projections and each is not FACT), IP_ADAPTER)
