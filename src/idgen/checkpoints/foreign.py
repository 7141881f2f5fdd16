"""Known formats that are not supported: recognised by their keys, and refused by name."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import torch

from ..errors import CheckpointError
from .layouts import LAYOUTS, Layout, layout_in

Keys = Collection[str]


class Foreign(NamedTuple):
    """An unsupported format: its name, a test of its keys (top-level names and all names), and what it would need."""

    name: str
    matches: Callable[[Keys, Keys], bool]
    needs: str


FOREIGN = (
    Foreign(
        "PuLID for FLUX",
        lambda top, keys: bool({"pulid_encoder", "pulid_ca"} & set(top)),
        "FLUX's transformer; load pulid_v1.bin or pulid_v1.1.safetensors, which are for SDXL",
    ),
    Foreign(
        "ConsistentID",
        lambda top, keys: "FacialEncoder" in top,
        "its FacialEncoder, which fuses CLIP features of the eyes, nose, ears and mouth into words of the prompt, and "
        "a face parser with 19 labels (face_parsing.pth); image_proj and adapter_modules alone, which are those of "
        "IP-Adapter-FaceID-Plus, draw another person. An adapter of your own can have words for parts of the face, by "
        "--num_words and --losses.word_parts, and tokens, by --encoder parts/dlib-resnet-v1",
    ),
    Foreign(
        "MasterWeaver",
        lambda top, keys: {"id_encoder", "adapter_modules"} <= set(top),
        "its CLIP identity encoder, which reads no face embedding",
    ),
    Foreign(
        "W+ adapter",
        lambda top, keys: "wplus_adapter" in top,
        "StyleGAN's W+ encoder (e4e)",
    ),
    Foreign(
        "the LoRA of an IP-Adapter-FaceID file",
        lambda top, keys: any(key.startswith("lora_unet_") for key in keys),
        "the adapter itself; load the .bin of the same name, which contains this LoRA",
    ),
    Foreign(
        "a plain IP-Adapter",
        lambda top, keys: bool({"image_proj.proj.weight", "image_proj.proj.3.weight"} & set(keys)),
        "an image prompt and no identity; load it with diffusers' pipe.load_ip_adapter",
    ),
)


def supported_layout(state: Mapping[str, Any], where: str) -> Layout:
    """The layout of a file; other files are refused.

    Args:
        state: All tensors by their flattened names.
        where: The file, for the error message.

    Raises:
        CheckpointError: The format is known but not supported, or not known.
    """
    top = {name.split(".")[0] for name in state}
    for foreign in FOREIGN:
        if foreign.matches(top, state.keys()):
            raise CheckpointError(f"'{where}' is {foreign.name}, which is not supported: it needs {foreign.needs}.")
    width = state.get("image_proj.proj_in.weight")
    if "image_proj.latents" in state and isinstance(width, torch.Tensor) and width.shape[1:] in ((1280,), (1664,)):
        raise CheckpointError(
            f"'{where}' is IP-Adapter Plus, which reads CLIP features and no face embedding; load it with diffusers' "
            "pipe.load_ip_adapter."
        )
    if (layout := layout_in(top)) is None:
        known = " or ".join(f"'{each.projection}' and '{each.layers[0]}'" for each in LAYOUTS)
        raise CheckpointError(
            f"'{where}' is not a known identity adapter: it has the parts {', '.join(sorted(top)[:6])} instead of "
            f"{known}."
        )
    return layout
