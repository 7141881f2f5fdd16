"""The columns of `idgen prepare --cache`, by name."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch

from ..errors import CheckpointError, DataError
from ..faces import register_encoder, spec_of
from ..tiny import base_place
from ..vae import fastest_device, open_vae
from .bank_writing import write_embeddings
from .columns import Maker, write_column
from .engines import Engine
from .framing import framing_for
from .makers import AugmentedMaker, EmbeddingMaker, FeatureMaker, LatentMaker, TextMaker, augmented_column
from .manifest import Manifest


class Models(NamedTuple):
    """Models and settings with which columns are computed.

    Attributes:
        shards: Folder or URL of the set.
        encoder: Name of the set's face encoder.
        others: Stored name → what opens it, of further encoders.
        base: Stable Diffusion model that latents and text are for; for "features", a CLIP image encoder.
        resolution: Resolution of the pictures that are encoded as latents.
        id_adapter: Identity adapter that "triplets" are drawn with; the small model has its own.
    """

    shards: str
    encoder: str
    others: Mapping[str, str]
    base: str
    resolution: int
    id_adapter: str | None = None


def write_caches(
    shards: str,
    names: Sequence[str],
    *,
    base: str,
    resolution: int,
    id_adapter: str | None = None,
    encoders: Sequence[str] = (),
    engine: Engine | None = None,
    progress: Callable[[str], object] | None = None,
) -> None:
    """Write columns of a finished set.

    Args:
        shards: Folder or URL of the set.
        names: "augmented", "embeddings", "latents", "text", "features" or "triplets".
        base: See `Models`; so are `resolution` and `id_adapter`.
        resolution: Side in pixels.
        id_adapter: A folder, a file or a hub id.
        encoders: Face encoders, as `open_encoder` opens them. Of all but the set's, "embeddings" are written.
        engine: Runs small networks; large ones run in this process, on a GPU if there is one.
        progress: Called with the name of each finished shard.

    Raises:
        DataError: A name is unknown, there is no other encoder for "embeddings", or a column of that name was made by
            another model.
        CheckpointError: The base model cannot be opened.
        AdapterError: "triplets" are asked for, and there is no adapter for the base.
    """
    if unknown := [name for name in names if name not in _MAKERS]:
        raise DataError(f"Unknown columns {unknown}; known are {', '.join(_MAKERS)}.")
    encoder = Manifest.open(shards).encoder
    others = {register_encoder(spec): spec for spec in encoders}
    others.pop(encoder, None)
    if "embeddings" in names and not others:
        raise DataError(f"The set has the embeddings of '{encoder}'. Give another --encoder to cache its embeddings.")
    wanted = [*names, *(["embeddings"] if others and "embeddings" not in names else [])]
    for name in wanted:
        for maker in _MAKERS[name](Models(shards, encoder, others, base, resolution, id_adapter)):
            write_column(shards, maker, engine, progress)
    for other in others:
        write_embeddings(shards, other)


def _load(load: Callable[..., Any], base: str, part: str) -> Any:
    """One part of a base model."""
    try:
        return load(base_place(base), subfolder=part)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"The {part} of '{base}' could not be opened: {error}") from error


def _augmented(models: Models) -> Iterator[Maker]:
    yield AugmentedMaker(models.encoder, spec_of(models.encoder))
    for encoder, spec in models.others.items():
        yield AugmentedMaker(encoder, spec, augmented_column(encoder))


def _embeddings(models: Models) -> Iterator[Maker]:
    for encoder, spec in models.others.items():
        yield EmbeddingMaker(encoder, spec)


def _latents(models: Models) -> Iterator[Maker]:
    yield LatentMaker(open_vae(models.base), framing_for(models.base, models.resolution))


def _text(models: Models) -> Iterator[Maker]:
    from diffusers import AutoModel
    from transformers import AutoTokenizer

    text_encoder = _load(AutoModel.from_pretrained, models.base, "text_encoder").to(fastest_device())
    yield TextMaker(text_encoder, _load(AutoTokenizer.from_pretrained, models.base, "tokenizer"))


def _features(models: Models) -> Iterator[Maker]:
    from ..faces.clip import ClipFeatures

    features = ClipFeatures(models.base)
    torch.nn.Module.to(features.model, fastest_device())  # the annotation of transformers' own is wrong
    yield FeatureMaker(features)


def _triplets(models: Models) -> Iterator[Maker]:
    from ..commands.shared import open_identity_net, open_pipeline
    from .triplets import TripletMaker

    pipeline = open_pipeline(models.base, models.id_adapter, None, None)
    pipeline.set_progress_bar_config(disable=True)
    latents = LatentMaker(open_vae(models.base), framing_for(models.base, models.resolution))
    yield TripletMaker(models.shards, pipeline, latents, open_identity_net(None, models.base, models.id_adapter))


_MAKERS: dict[str, Callable[[Models], Iterator[Maker]]] = {
    "augmented": _augmented,
    "embeddings": _embeddings,
    "latents": _latents,
    "text": _text,
    "features": _features,
    "triplets": _triplets,
}
