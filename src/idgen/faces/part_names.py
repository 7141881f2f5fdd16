"""Names of the parts of a face, for options that are read without torch."""

from typing import Literal, get_args

FacePart = Literal["face", "eyes", "nose", "mouth"]
PARTS: tuple[FacePart, ...] = get_args(FacePart)
