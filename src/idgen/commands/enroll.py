"""`idgen enroll`: photos of a person → an identity file."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import tyro

from ..errors import IdgenError
from ..faces import load_photo
from ..inputs import EncoderSpec, InputPath
from ..terminal import say, show, working
from .shared import FaceOption, read_face_option


def run(
    photos: Annotated[tuple[InputPath, ...], tyro.conf.Positional],
    /,
    output: Path = Path("identity.safetensors"),
    name: str | None = None,
    face: FaceOption = None,
    encoder: EncoderSpec = "dlib-resnet-v1",
    blocklist: InputPath | None = None,
) -> None:
    """Enroll a person from photos into an identity file, which `idgen generate --identity` reads.

    idgen enroll anna-1.jpg anna-2.jpg --name Anna --output anna.safetensors

    Args:
        photos: Photos of the same person. The file does not contain them.
        output: Identity file to write, a few KB.
        name: Name of the person.
        face: Face to use in photos that show several: the largest, an index (from 0, largest first) or a box.
        encoder: Face encoder; docs/encoders.md describes them. An adapter reads only identities of the encoder it was
            trained with; `idgen info` shows which one.
        blocklist: Refuse people on this list, written by `idgen blocklist`.
    """
    if not photos:
        raise IdgenError("At least one photo is required.")
    choice = read_face_option(face)
    for photo in photos:
        load_photo(photo)
    with working("Opening the face encoder …"):
        from ..enrollment import enroll
        from ..faces import FaceAnalyzer
        from ..provenance import IdentityBlocklist

        listed = None if blocklist is None else IdentityBlocklist.load(blocklist)
        analyzer = FaceAnalyzer.open(encoder)
    person = enroll(list(photos), analyzer, face=choice, name=name)
    if listed is not None:
        listed.check(person)
    person.save(output)
    say(person)
    show(output)
