"""Options that `idgen swap` and `idgen restore` share."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from ..errors import IdgenError
from ..faces import load_photo
from ..inputs import AdapterName, BaseName, EncoderSpec, InputPath, NetworkName
from ..provenance.options import MarkOptions
from .shared import check_adapter


@dataclass(frozen=True, kw_only=True)
class EditOptions:
    """Options of the commands that edit a picture.

    Attributes:
        picture: Picture to edit, of any size.
        photo: One or several photos of the person.
        identity: Identity file of the person, written by `idgen enroll`, instead of photos.
        base: Stable Diffusion model: a folder, a hub id, or "tiny", the small face model of the package.
        id_adapter: Identity adapter for this base: a folder, a file or a hub id.
        weight_name: File of the adapter, if its folder or repository holds several.
        encoder: Face encoder that the adapter reads; needed only if it is a file or code of your own.
        identity_net: IdentityNet, which keeps the pose: a folder, a file or a hub id. Defaults to that in the folder
            of the adapter.
        output: PNG file. Defaults to the picture's name with the command's name behind it, in the current folder.
        id_scale: Strength of the identity conditioning.
        prompt: Prompt; "a photo of" the person if not given.
        negative_prompt: Negative prompt.
        steps: Denoising steps; by default what the base model recommends, or 25.
        guidance_scale: Strength of classifier-free guidance; by default what the base model recommends, or 5.
        seed: Seed of the noise.
        device: Device to compute on. Defaults to a GPU if there is one.
        marks: How the picture is marked, and who is refused.
    """

    needs_person: ClassVar[bool] = True

    picture: Annotated[InputPath, tyro.conf.Positional]
    photo: tuple[InputPath, ...] = ()
    identity: tuple[InputPath, ...] = ()
    base: BaseName = "tiny"
    id_adapter: AdapterName | None = None
    weight_name: str | None = None
    encoder: EncoderSpec | None = None
    identity_net: NetworkName | None = None
    output: Path | None = None
    id_scale: float | None = None
    prompt: str | None = None
    negative_prompt: str = ""
    steps: int | None = None
    guidance_scale: float | None = None
    seed: int = 0
    device: str | None = None
    marks: Annotated[MarkOptions, tyro.conf.arg(name="")] = field(default_factory=MarkOptions)

    def __post_init__(self) -> None:
        if self.steps is not None and self.steps < 1:
            raise IdgenError(f"--steps must be at least 1, got {self.steps}.")

    @property
    def names_person(self) -> bool:
        """Whether the options say whom to draw."""
        return bool(self.photo or self.identity)

    def check(self) -> None:
        """Check what can be checked without a model."""
        check_adapter(self.base, self.id_adapter)
        if self.photo and self.identity:
            raise IdgenError("Give either --photo or --identity, not both.")
        if self.needs_person and not self.names_person:
            raise IdgenError("--photo or --identity is required.")
        if self.output is not None and self.output.suffix.lower() != ".png":
            raise IdgenError(
                f"Pictures are written as PNG, which keeps their marks intact; '{self.output}' must end in .png."
            )
        for photo in (self.picture, *self.photo):
            load_photo(photo)

    def output_for(self, command: str) -> Path:
        """The file to write."""
        return self.output or Path(f"{self.picture.stem}-{command}.png")
