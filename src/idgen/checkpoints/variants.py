"""The supported public formats: the meaning of their tensors, which the files do not contain.

`VARIANTS` is the table of all formats. To add one, add its row.

Sources: the code of InstantID and of IP-Adapter, the model cards of `InstantX/InstantID` and `h94/IP-Adapter-FaceID`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from ..errors import CheckpointError

LORA = "ip_adapter.0.to_q_lora.down.weight"


@dataclass(frozen=True, kw_only=True)
class Variant:
    """One public format.

    Attributes:
        name: Value of `variant=`.
        projection: Type of the projection; see `idgen.adapter.PROJECTIONS`.
        encoder: Face encoder that it was trained with.
        normalised: Whether embeddings have unit length; otherwise they are raw.
        files: Regular expression of its file names, to distinguish formats with the same tensors.
        lora: Whether its files contain a LoRA on the UNet's attention layers.
        shortcut: `shortcut` of the `"plus"` projection.
        pool_photos: Whether the embeddings of several photos are averaged; otherwise each photo has its own tokens.
        image_encoder: Image encoder whose features it reads beside the embedding.
        head_width: Width of an attention head in its projection, which the tensors do not show.
    """

    name: str
    projection: str
    encoder: str
    normalised: bool
    files: str
    lora: bool = False
    shortcut: bool = False
    pool_photos: bool = True
    image_encoder: str | None = None
    head_width: int = 64

    def config(self, state: Mapping[str, torch.Tensor], layers: Mapping[str, int]) -> dict[str, Any]:
        """The configuration of an `IdentityAdapter` for these tensors, with sizes from their shapes."""
        lora = state.get(LORA)
        shared, own = (_resampler_sizes if self.projection == "resampler" else _mlp_sizes)(state, self.head_width)
        return {
            "layers": dict(layers),
            "encoder": self.encoder,
            "normalised": self.normalised,
            "pool_photos": self.pool_photos,
            "image_encoder": self.image_encoder,
            "lora_rank": 0 if lora is None else _sides(state, LORA)[0],
            "projection": {"type": self.projection, **own, **({"shortcut": True} if self.shortcut else {})},
            **shared,
        }


VARIANTS = {
    variant.name: variant
    for variant in (
        Variant(
            name="instantid",
            projection="resampler",
            encoder="insightface/antelopev2",
            normalised=False,
            files=r"instant.?id|^ip-adapter\.(bin|safetensors)$",
        ),
        Variant(
            name="faceid-portrait-unnorm",
            projection="resampler",
            encoder="insightface/buffalo_l",
            normalised=False,
            files="unnorm",
            pool_photos=False,
        ),
        Variant(
            name="faceid",
            projection="mlp",
            encoder="insightface/buffalo_l",
            normalised=True,
            files=r"faceid_(sd15|sdxl)",
            lora=True,
        ),
        Variant(
            name="faceid-portrait",
            projection="mlp",
            encoder="insightface/buffalo_l",
            normalised=True,
            files="portrait",
            pool_photos=False,
        ),
        Variant(
            name="faceid-plusv2",
            projection="plus",
            encoder="insightface/buffalo_l",
            normalised=True,
            files="plus.?v2",
            lora=True,
            shortcut=True,
            image_encoder="clip-1280x32",
        ),
        Variant(
            name="faceid-plus",
            projection="plus",
            encoder="insightface/buffalo_l",
            normalised=True,
            files=r"plus(?!.?v2)",
            lora=True,
            image_encoder="clip-1280x32",
        ),
    )
}
"""Variants by name. If file names do not distinguish formats with the same tensors, the first one is used."""


def recognise(state: Mapping[str, torch.Tensor], names: str, asked: str | None = None) -> tuple[Variant, bool]:
    """Identify the variant of a file.

    Args:
        state: Its tensors.
        names: Names of file and folder or repository, to distinguish variants with the same tensors.
        asked: Value of `variant=`.

    Returns:
        The variant, and whether it is a guess.

    Raises:
        CheckpointError: `asked` is unknown, or does not fit the tensors.
    """
    candidates = [v for v in VARIANTS.values() if v.projection == _projection(state)]
    if _projection(state) == "mlp":
        candidates = [v for v in candidates if v.lora == (LORA in state)]
    if asked is not None:
        if asked not in VARIANTS:
            raise CheckpointError(f"variant must be one of {', '.join(VARIANTS)}, got '{asked}'.")
        if VARIANTS[asked] not in candidates:
            possible = " or ".join(f"'{variant.name}'" for variant in candidates)
            raise CheckpointError(f"variant='{asked}' does not fit the file, which has the tensors of {possible}.")
        return VARIANTS[asked], False
    if len(candidates) == 1:
        return candidates[0], False
    named = [v for v in candidates if any(re.search(v.files, part, re.IGNORECASE) for part in names.split("/"))]
    return (named[0], False) if len(named) == 1 else (candidates[0], True)


def _projection(state: Mapping[str, torch.Tensor]) -> str:
    if "image_proj.perceiver_resampler.proj_in.weight" in state:
        return "plus"
    return "resampler" if "image_proj.latents" in state else "mlp"


Sizes = tuple[dict[str, int], dict[str, int]]
"""Sizes that all projections have, and sizes of this projection."""


def _resampler_sizes(state: Mapping[str, torch.Tensor], head_width: int) -> Sizes:
    _, num_tokens, dim = _sides(state, "image_proj.latents", 3)
    cross_attention_dim, _ = _sides(state, "image_proj.proj_out.weight")
    _, embedding_dim = _sides(state, "image_proj.proj_in.weight")
    shared = {"num_tokens": num_tokens, "embedding_dim": embedding_dim, "cross_attention_dim": cross_attention_dim}
    return shared, {"hidden_dim": dim, **_perceiver_sizes(state, "image_proj.", head_width)}


def _mlp_sizes(state: Mapping[str, torch.Tensor], head_width: int) -> Sizes:
    hidden_dim, embedding_dim = _sides(state, "image_proj.proj.0.weight")
    (cross_attention_dim,) = _sides(state, "image_proj.norm.weight", 1)
    outputs, _ = _sides(state, "image_proj.proj.2.weight")
    shared = {
        "num_tokens": outputs // cross_attention_dim,
        "embedding_dim": embedding_dim,
        "cross_attention_dim": cross_attention_dim,
    }
    own = {"hidden_dim": hidden_dim}
    if _projection(state) == "plus":
        _, own["feature_dim"] = _sides(state, "image_proj.perceiver_resampler.proj_in.weight")
        own |= _perceiver_sizes(state, "image_proj.perceiver_resampler.", head_width)
    return shared, own


def _perceiver_sizes(state: Mapping[str, torch.Tensor], prefix: str, head_width: int) -> dict[str, int]:
    queries = [name for name in state if re.fullmatch(re.escape(prefix) + r"layers\.\d+\.0\.to_q\.weight", name)]
    width, _ = _sides(state, f"{prefix}layers.0.0.to_q.weight")
    return {"depth": len(queries), "dim_head": head_width, "heads": width // head_width}


def _sides(state: Mapping[str, torch.Tensor], name: str, count: int = 2) -> torch.Size:
    """The shape of a tensor that the layout requires."""
    tensor = state.get(name)
    if tensor is None or tensor.ndim != count or 0 in tensor.shape:
        found = "is missing" if tensor is None else f"has shape {tuple(tensor.shape)}"
        raise CheckpointError(
            f"The file is not a complete adapter: '{name}' {found}; it must have {count} dimensions."
        )
    return tensor.shape
