"""The supported public formats: the meaning of their tensors, which the files do not contain.

`VARIANTS` is the table of all formats. To add one, add its row.

Sources: the code of InstantID, IP-Adapter, PhotoMaker, PuLID and FaceChain-FACT, the model cards of
`InstantX/InstantID` and `h94/IP-Adapter-FaceID`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

import torch

from ..errors import CheckpointError
from .sizes import READERS, projection_in, sides


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
        image_encoder: Image encoder whose features it reads beside the embedding. A digest is added to the name if the
            image encoder is in the file.
        head_width: Width of an attention head in its projection, which the tensors do not show.
        ortho: How its attention is added to the text attention; see `IdentityAdapter`.
        num_zero: Zero tokens behind its tokens.
        placement: Where it acts in a block; see `IdentityAdapter`.
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
    ortho: str | None = None
    num_zero: int = 0
    placement: str = "parallel"

    def config(self, state: Mapping[str, torch.Tensor], layers: Mapping[str, int]) -> dict[str, Any]:
        """The configuration of an `IdentityAdapter` for these tensors, with sizes from their shapes."""
        lora = _lora_name(state)
        shared, own = READERS[self.projection].sizes(state, self.head_width)
        return {
            "layers": dict(layers),
            "encoder": self.encoder,
            "normalised": self.normalised,
            "pool_photos": self.pool_photos,
            "image_encoder": _fingerprinted(self.image_encoder, state),
            "ortho": self.ortho,
            "num_zero": self.num_zero,
            "placement": self.placement,
            "lora_rank": 0 if lora is None else sides(state, lora)[0],
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
        Variant(
            name="facechain-fact",
            projection="rows",
            encoder="transface-s",
            normalised=False,
            files=r"facechain|adapter_(maj|film)",
            pool_photos=False,
            placement="sequential",
        ),
        Variant(
            name="photomaker-v1",
            projection="photomaker",
            encoder="dlib-resnet-v1",
            normalised=False,
            files=r"photomaker.?v1",
            lora=True,
            pool_photos=False,
            image_encoder="photomaker-v1",
        ),
        Variant(
            name="photomaker-v2",
            projection="photomaker-v2",
            encoder="insightface/buffalo_l",
            normalised=False,
            files=r"photomaker.?v2",
            lora=True,
            pool_photos=False,
            image_encoder="photomaker-v2",
            head_width=128,
        ),
        Variant(
            name="pulid-v1",
            projection="pulid",
            encoder="insightface/antelopev2",
            normalised=False,
            files="pulid",
            pool_photos=False,
            image_encoder="eva-clip-1024x24",
            ortho="ortho_v2",
            num_zero=8,
        ),
        Variant(
            name="pulid-v1.1",
            projection="idformer",
            encoder="insightface/antelopev2",
            normalised=False,
            files="pulid",
            pool_photos=False,
            image_encoder="eva-clip-1024x24",
            ortho="ortho_v2",
            num_zero=20,
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
    projection = projection_in(state)
    candidates = [v for v in VARIANTS.values() if v.projection == projection]
    if not candidates:
        raise CheckpointError("The file is not a complete adapter: the tensors of its projection are not known.")
    if projection == "mlp":
        candidates = [v for v in candidates if v.lora == (_lora_name(state) is not None)]
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


def _lora_name(state: Mapping[str, torch.Tensor]) -> str | None:
    """The name of a tensor whose rows are the rank of the LoRA in the file, or `None` if it contains no LoRA."""
    return next((name for name in state if name.endswith(".to_q_lora.down.weight")), None)


def _fingerprinted(name: str | None, state: Mapping[str, torch.Tensor]) -> str | None:
    """The name of an image encoder, with a digest of its vectors if it is in the file."""
    vectors = [state[key] for key in sorted(state) if ".vision_model." in key and state[key].ndim == 1]
    if name is None or not vectors:
        return name
    return f"{name}-{sha256(torch.cat(vectors).float().numpy().tobytes()).hexdigest()[:8]}"
