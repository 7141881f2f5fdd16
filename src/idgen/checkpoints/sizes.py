"""The sizes of a projection from the shapes of its published tensors.

`READERS` is the table of all projections that public files have. To add one, add its row.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from math import isqrt
from typing import NamedTuple

import torch

from ..errors import CheckpointError

Tensors = Mapping[str, torch.Tensor]
Sizes = tuple[dict[str, int], dict[str, int]]
"""Sizes that all projections have, and sizes of this projection."""


class Reader(NamedTuple):
    """How the tensors of a projection are recognised, and its sizes read.

    Attributes:
        mark: A tensor that only this projection has, or only this one and those of later rows.
        sizes: Tensors, and the width of an attention head → sizes.
    """

    mark: str
    sizes: Callable[[Tensors, int], Sizes]


def sides(state: Tensors, name: str, count: int = 2) -> torch.Size:
    """The shape of a tensor that the layout requires.

    Raises:
        CheckpointError: It is missing, or has another number of dimensions.
    """
    tensor = state.get(name)
    if tensor is None or tensor.ndim != count or 0 in tensor.shape:
        found = "is missing" if tensor is None else f"has shape {tuple(tensor.shape)}"
        raise CheckpointError(
            f"The file is not a complete adapter: '{name}' {found}; it must have {count} dimensions."
        )
    return tensor.shape


def _resampler(state: Tensors, head_width: int) -> Sizes:
    _, num_tokens, dim = sides(state, "image_proj.latents", 3)
    cross_attention_dim, _ = sides(state, "image_proj.proj_out.weight")
    _, embedding_dim = sides(state, "image_proj.proj_in.weight")
    shared = {"num_tokens": num_tokens, "embedding_dim": embedding_dim, "cross_attention_dim": cross_attention_dim}
    return shared, {"hidden_dim": dim, **_perceiver(state, "image_proj.", head_width)}


def _rows(state: Tensors, head_width: int) -> Sizes:
    _, num_tokens, dim = sides(state, "local_fac_prj.latents", 3)
    cross_attention_dim, _ = sides(state, "local_fac_prj.proj_out.weight")
    _, width = sides(state, "local_fac_prj.proj_in.weight")
    shared = {
        "num_tokens": num_tokens,
        "embedding_dim": TRANSFACE_ROWS * width,
        "cross_attention_dim": cross_attention_dim,
    }
    own = {"rows": TRANSFACE_ROWS, "positions": False, "hidden_dim": dim}
    return shared, own | _perceiver(state, "local_fac_prj.", head_width)


def _mlp(state: Tensors, _: int, first: str = "image_proj.proj.", norm: str = "image_proj.norm.weight") -> Sizes:
    hidden_dim, embedding_dim = sides(state, f"{first}0.weight")
    (cross_attention_dim,) = sides(state, norm, 1)
    outputs, _ = sides(state, f"{first}2.weight")
    shared = {
        "num_tokens": outputs // cross_attention_dim,
        "embedding_dim": embedding_dim,
        "cross_attention_dim": cross_attention_dim,
    }
    return shared, {"hidden_dim": hidden_dim}


def _plus(state: Tensors, head_width: int) -> Sizes:
    shared, own = _mlp(state, head_width)
    _, feature_dim = sides(state, "image_proj.perceiver_resampler.proj_in.weight")
    return shared, {
        **own,
        "feature_dim": feature_dim,
        **_perceiver(state, "image_proj.perceiver_resampler.", head_width),
    }


def _photomaker(state: Tensors, _: int) -> Sizes:
    vision = "id_encoder.vision_model."
    (feature_dim,) = sides(state, f"{vision}embeddings.class_embedding", 1)
    _, _, _, patch_size = sides(state, f"{vision}embeddings.patch_embedding.weight", 4)
    places, _ = sides(state, f"{vision}embeddings.position_embedding.weight")
    image_hidden_dim, _ = sides(state, f"{vision}encoder.layers.0.mlp.fc1.weight")
    text_dim, _ = sides(state, "id_encoder.visual_projection.weight")
    (cross_attention_dim,) = sides(state, "id_encoder.fuse_module.layer_norm.weight", 1)
    layers = [name for name in state if re.fullmatch(rf"{vision}encoder\.layers\.\d+\.layer_norm1\.weight", name)]
    shared = {"num_tokens": 1, "embedding_dim": DLIB_DIM, "cross_attention_dim": cross_attention_dim}
    return shared, {
        "feature_dim": feature_dim,
        "image_depth": len(layers),
        "image_heads": max(1, feature_dim // CLIP_HEAD),
        "image_hidden_dim": image_hidden_dim,
        "image_size": isqrt(places - 1) * patch_size,
        "patch_size": patch_size,
        "text_dim": text_dim,
    }


def _photomaker_v2(state: Tensors, head_width: int) -> Sizes:
    qformer = "id_encoder.qformer_perceiver."
    shared, own = _mlp(state, head_width, f"{qformer}token_proj.", f"{qformer}token_norm.weight")
    _, image = _photomaker(state, head_width)
    return shared, {**own, **_perceiver(state, f"{qformer}perceiver_resampler.", head_width), **image}


def _pulid(state: Tensors, _: int) -> Sizes:
    hidden_dim, inputs = sides(state, "id_adapter.body.0.weight")
    hidden_dim_2, _ = sides(state, "id_adapter.body.3.weight")
    outputs, _ = sides(state, "id_adapter.body.6.weight")
    cross_attention_dim, _ = sides(state, "id_adapter.mapping_0.6.weight")
    _, feature_dim = sides(state, "id_adapter.mapping_0.0.weight")
    own = {"feature_dim": feature_dim, "hidden_dim": hidden_dim, "hidden_dim_2": hidden_dim_2}
    return _pulid_sizes(inputs, outputs // cross_attention_dim + SCALES, cross_attention_dim, own)


def _idformer(state: Tensors, head_width: int) -> Sizes:
    _, num_tokens, hidden_dim = sides(state, "id_adapter.latents", 3)
    _, cross_attention_dim = sides(state, "id_adapter.proj_out")
    map_dim, inputs = sides(state, "id_adapter.id_embedding_mapping.0.weight")
    outputs, _ = sides(state, "id_adapter.id_embedding_mapping.6.weight")
    _, feature_dim = sides(state, "id_adapter.mapping_0.0.weight")
    own = {"feature_dim": feature_dim, "hidden_dim": hidden_dim, "map_dim": map_dim}
    own |= {"id_tokens": outputs // hidden_dim, **_perceiver(state, "id_adapter.", head_width)}
    return _pulid_sizes(inputs, num_tokens, cross_attention_dim, own)


def _pulid_sizes(inputs: int, num_tokens: int, cross_attention_dim: int, own: dict[str, int]) -> Sizes:
    if inputs <= ANTELOPE_DIM:
        raise CheckpointError(
            f"The file is not a complete adapter: PuLID reads {ANTELOPE_DIM} numbers of a face embedding and those of "
            f"an image embedding behind them, but its first layer reads {inputs}."
        )
    shared = {"num_tokens": num_tokens, "embedding_dim": ANTELOPE_DIM, "cross_attention_dim": cross_attention_dim}
    return shared, {"clip_dim": inputs - ANTELOPE_DIM, **own}


SCALES = 5
"""Tokens of PuLID v1 from hidden states, one for each of the layers that it reads."""

ANTELOPE_DIM = 512
"""Length of the embeddings of `insightface/antelopev2`."""

DLIB_DIM = 128
"""Length of the embeddings of `dlib-resnet-v1`, by which PhotoMaker v1, which reads none, knows people."""

TRANSFACE_ROWS = 144
"""Patches of a face of 112 pixels for TransFace-S, which has a local token for each."""

CLIP_HEAD = 64
"""Width of an attention head of every CLIP image encoder."""

READERS = {
    "photomaker-v2": Reader("id_encoder.qformer_perceiver.token_proj.0.weight", _photomaker_v2),
    "photomaker": Reader("id_encoder.fuse_module.layer_norm.weight", _photomaker),
    "pulid": Reader("id_adapter.body.0.weight", _pulid),
    "idformer": Reader("id_adapter.id_embedding_mapping.0.weight", _idformer),
    "rows": Reader("local_fac_prj.latents", _rows),
    "plus": Reader("image_proj.perceiver_resampler.proj_in.weight", _plus),
    "resampler": Reader("image_proj.latents", _resampler),
    "mlp": Reader("image_proj.proj.0.weight", _mlp),
}
"""Readers by type of projection; the first one whose mark is in the file is used."""


def projection_in(state: Tensors) -> str | None:
    """The type of the projection that a file has, or `None` if it is not known."""
    return next((kind for kind, reader in READERS.items() if reader.mark in state), None)


def _perceiver(state: Tensors, prefix: str, head_width: int) -> dict[str, int]:
    queries = [name for name in state if re.fullmatch(re.escape(prefix) + r"layers\.\d+\.0\.to_q\.weight", name)]
    width, _ = sides(state, f"{prefix}layers.0.0.to_q.weight")
    return {"depth": len(queries), "dim_head": head_width, "heads": width // head_width}
