"""`idgen swap`: faces of a picture → those of other people."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

import tyro

from ..errors import IdgenError
from ..terminal import show
from .edit_options import EditOptions
from .shared import read_face_option


@dataclass(frozen=True, kw_only=True)
class SwapOptions(EditOptions):
    """Options of `idgen swap`.

    Attributes:
        face: Faces of the picture to replace: for each, the largest, an index (from 0, largest first) or a box. Needed
            if the picture shows several.
        strength: How much of a face is drawn anew, in (0, 1]. Lower values keep expression and light, higher ones are
            more like the person. Defaults to 0.8.
        anonymise: Replace the faces by those of people who do not exist, instead of --photo or --identity. Attributes
            that the encoder knows stay: with the default encoder age and sex.
        match_colours: Give the drawn face the mean colour and the contrast of the one that it replaces.
    """

    face: tuple[str, ...] = ()
    strength: float | None = None
    anonymise: bool = False
    match_colours: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.strength is not None and not 0 < self.strength <= 1:
            raise IdgenError(f"--strength must be above 0 and at most 1, got {self.strength}.")
        if self.anonymise and (self.photo or self.identity):
            raise IdgenError("--anonymise draws people who do not exist: leave out --photo and --identity.")

    @property
    def names_person(self) -> bool:
        """Whether the options say whom to draw."""
        return self.anonymise or super().names_person


def run(options: Annotated[SwapOptions, tyro.conf.arg(name="")]) -> None:
    """Replace faces of a picture by those of people who have agreed, and keep the rest of it.

    idgen swap group.jpg --photo anna.jpg --face 0

    idgen swap group.jpg --identity anna.safetensors bruno.safetensors --face 0 2 --output swapped.png

    idgen swap anna.jpg --anonymise
    """
    faces = [read_face_option(face) for face in options.face]
    if len(options.identity) > 1 and len(options.identity) != len(faces):
        raise IdgenError(f"--identity names {len(options.identity)} people, but --face {len(faces)} face(s).")
    options.check()
    from ..editing import swap_faces

    show(swap_faces(options, faces))
