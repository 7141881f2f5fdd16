"""The columns of `idgen prepare --cache`, by name."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError, DataError
from ..files import read_json
from ..tiny import TINY_PATH
from ..typed import arguments
from .columns import Maker, write_column
from .engines import Engine
from .framing import AlignedFraming, Framing, PhotoFraming
from .makers import AugmentedMaker, FeatureMaker, LatentMaker, TextMaker
from .manifest import Manifest

FRAMING = "framing.json"


def write_caches(
    shards: str,
    names: Sequence[str],
    *,
    base: str,
    resolution: int,
    engine: Engine | None = None,
    progress: Callable[[str], object] | None = None,
) -> None:
    """Write columns of a finished set.

    Args:
        shards: Folder or URL of the set.
        names: "augmented", "latents", "text" or "features".
        base: Stable Diffusion model that latents and text are for; for "features", a CLIP image encoder.
        resolution: Resolution of the pictures that are encoded as latents.
        engine: Runs small networks; large ones run in this process, on a GPU if there is one.
        progress: Called with the name of each finished shard.

    Raises:
        DataError: A name is unknown, or a column of that name was made by another model.
        CheckpointError: The base model cannot be opened.
    """
    if unknown := [name for name in names if name not in _MAKERS]:
        raise DataError(f"Unknown columns {unknown}; known are {', '.join(_MAKERS)}.")
    encoder = Manifest.open(shards).encoder
    for name in names:
        write_column(shards, _MAKERS[name](encoder, base, resolution), engine, progress)


def framing_for(base: str, resolution: int) -> Framing:
    """How the pictures of a base model are cut from photos.

    A model of aligned faces, such as the one that comes with the package, has a file `framing.json` with `resolution`,
    `zoom` and `rise`; see `AlignedFraming`. All other models use whole photos.

    Args:
        base: Folder or hub id, or "tiny".
        resolution: Resolution of whole photos.

    Raises:
        DataError: `framing.json` cannot be read.
    """
    file = (TINY_PATH if base == "tiny" else Path(base)) / FRAMING
    if not file.is_file():
        return PhotoFraming(resolution)
    return AlignedFraming(**arguments(AlignedFraming, read_json(file, DataError), str(file), DataError))


def _load(load: Callable[..., Any], base: str, part: str) -> Any:
    """One part of a base model."""
    try:
        return load(str(TINY_PATH) if base == "tiny" else base, subfolder=part)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"The {part} of '{base}' could not be opened: {error}") from error


def _device() -> torch.device:
    """The fastest device of this machine."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


def _latents(_: str, base: str, resolution: int) -> Maker:
    from diffusers import AutoModel

    return LatentMaker(_load(AutoModel.from_pretrained, base, "vae").to(_device()), framing_for(base, resolution))


def _text(_: str, base: str, __: int) -> Maker:
    from diffusers import AutoModel
    from transformers import AutoTokenizer

    text_encoder = _load(AutoModel.from_pretrained, base, "text_encoder").to(_device())
    return TextMaker(text_encoder, _load(AutoTokenizer.from_pretrained, base, "tokenizer"))


def _features(_: str, base: str, __: int) -> Maker:
    from ..faces.clip import ClipFeatures

    features = ClipFeatures(base)
    torch.nn.Module.to(features.model, _device())  # the annotation of transformers' own is wrong
    return FeatureMaker(features)


_MAKERS: dict[str, Callable[[str, str, int], Maker]] = {
    "augmented": lambda encoder, _, __: AugmentedMaker(encoder),
    "latents": _latents,
    "text": _text,
    "features": _features,
}
