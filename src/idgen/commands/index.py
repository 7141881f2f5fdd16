"""`idgen index`: pictures that were drawn → an index, in which `idgen origin` looks edited pictures up."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from ..errors import ProvenanceError
from ..inputs import BaseName, InputPath
from ..terminal import show

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")


def run(
    pictures: Annotated[tuple[InputPath, ...], tyro.conf.Positional],
    /,
    output: Path = Path("index.safetensors"),
    base: BaseName = "tiny",
) -> None:
    """Index pictures, so that `idgen origin` can tell which of them another picture was made from.

    idgen index pictures/ --output index.safetensors

    idgen origin found.jpg --index index.safetensors

    The index holds file names and small VAE latents of the whole pictures, and no embeddings of faces. Keep it as you
    keep the pictures: the VAE decodes the latents to small copies of them.

    Args:
        pictures: Images (.png, .jpg, .webp), and folders of them. Folders inside are searched too.
        output: Index to write. Pictures are added if it exists; one of the same name is replaced.
        base: Base model whose VAE reads the pictures; preferably of the model that drew them.
    """
    files = [file for place in pictures for file in _images(place)]
    if not files:
        raise ProvenanceError(f"There are no images ({', '.join(SUFFIXES)}) in {', '.join(map(str, pictures))}.")
    from rich.progress import track

    from ..provenance.picture_index import PictureIndex
    from ..provenance.picture_latents import LatentReader
    from ..terminal import console

    index = PictureIndex.load(output) if output.exists() else None
    named = ((str(file), file) for file in track(files, "Indexing", console=console, transient=True))
    PictureIndex.of(named, LatentReader(base), index).save(output)
    show(output)


def _images(place: Path) -> list[Path]:
    if place.is_file():
        return [place]
    return sorted(file for file in place.rglob("*") if file.suffix.lower() in SUFFIXES and file.is_file())
