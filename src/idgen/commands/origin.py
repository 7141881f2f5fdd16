"""`idgen origin`: an edited picture → the picture of an index that it was made from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from ..errors import ProvenanceError
from ..inputs import BaseName, InputPath
from ..terminal import show, working


def run(
    picture: Annotated[InputPath, tyro.conf.Positional],
    /,
    index: InputPath = Path("index.safetensors"),
    base: BaseName | None = None,
    count: int = 5,
) -> None:
    """Tell which picture of an index a picture was made from, also if it was edited.

    idgen origin found.jpg --index index.safetensors

    A score above the threshold means that the picture was most likely made from that picture of the index: 1 % of the
    pictures of the index reach it with another one. Cropped pictures are often missed; docs/tracing.md has figures.

    Args:
        picture: Image to look up.
        index: File written by `idgen index`.
        base: Base model whose VAE the index was made with. Defaults to the name in the index.
        count: Number of candidates to show.
    """
    if count < 1:
        raise ProvenanceError(f"--count must be at least 1, got {count}.")
    from ..provenance.picture_index import PictureIndex

    known = PictureIndex.load(index)
    with working(f"Searching {len(known):,} pictures …"):
        from ..provenance.picture_latents import LatentReader

        (origins,) = known.find([picture], LatentReader(base or known.base), count)
    found = origins[0].score >= known.threshold
    show(f"{'found' if found else 'not found'} (threshold {known.threshold:.3f})")
    for origin in origins:
        show(f"{origin.score:.3f}  {origin.name}")
