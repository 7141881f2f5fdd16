"""`idgen blocklist`: a list of people who are refused."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from ..inputs import EncoderSpec, InputPath, existing_path
from ..terminal import show


def run(
    file: Annotated[Path, tyro.conf.Positional],
    /,
    add: tuple[InputPath, ...] = (),
    check: tuple[InputPath, ...] = (),
    threshold: float | None = None,
    encoder: EncoderSpec | None = None,
) -> None:
    """Edit or check a list of people who are refused. The list holds no photos and no names.

    idgen blocklist refused.safetensors --add anna-1.jpg bruno.safetensors

    idgen blocklist refused.safetensors --check photo.jpg

    idgen generate "a portrait" --photo photo.jpg --blocklist refused.safetensors

    Args:
        file: The list. --add creates it if it does not exist.
        add: Photos or identity files to add, each of one person.
        check: Photos or identity files to check. The command ends with an error if a person is on the list.
        threshold: Cosine similarity from which two faces are taken for the same person. Defaults to that of the
            encoder's statistics, which `idgen calibrate` measures.
        encoder: Face encoder of a new list; it must be the one that the adapter reads. Defaults to dlib-resnet-v1. For
            an existing list it is needed only if the encoder is a file or code of your own.
    """
    if not add:
        existing_path(str(file))
    from ..provenance.command import edit_blocklist

    show(edit_blocklist(file, add, check, threshold, encoder))
