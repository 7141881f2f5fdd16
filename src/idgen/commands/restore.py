"""`idgen restore`: a damaged photo → the same photo with a restored face."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import tyro

from ..errors import IdgenError
from ..inputs import NetworkName
from ..terminal import show
from .edit_options import EditOptions
from .shared import FaceOption, read_face_option


@dataclass(frozen=True, kw_only=True)
class RestoreOptions(EditOptions):
    """Options of `idgen restore`.

    Attributes:
        restorer: Restorer for the base, written by `idgen train restorer`: a folder or a hub id.
        face: Face to restore if the photo shows several: the largest, an index (from 0, largest first) or a box.
    """

    needs_person: ClassVar[bool] = False

    restorer: NetworkName
    face: FaceOption = None


def run(options: Annotated[RestoreOptions, tyro.conf.arg(name="")]) -> None:
    """Restore the face of a damaged photo, with the person from other photos if they are given.

    idgen restore old.jpg --photo anna-1.jpg anna-2.jpg --restorer restorer/

    idgen restore old.jpg --restorer restorer/ --output restored.png
    """
    face = read_face_option(options.face)
    if len(options.identity) > 1:
        raise IdgenError(f"A restored face shows one person: give one --identity, got {len(options.identity)}.")
    options.check()
    from ..editing import restore_face

    show(restore_face(options, face))
