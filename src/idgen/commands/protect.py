"""`idgen protect`: a photo → the same photo, which face encoders do not recognise."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import numpy as np
import tyro
from PIL import Image
from rich.console import Console
from rich.table import Table

from ..errors import CheckpointError, IdgenError, MissingDependencyError, ProvenanceError
from ..faces import load_photo
from ..files import write_bytes
from ..inputs import BaseName, EncoderSpec, InputPath
from ..provenance.protection_settings import ProtectionSettings
from ..terminal import say, show, visible, warn
from .shared import FaceOption, read_face_option

if TYPE_CHECKING:
    from ..faces import FaceAnalyzer, FaceEncoder
    from ..provenance.protection_report import Edit


@dataclass(frozen=True, kw_only=True)
class ProtectOptions:
    """Options of `idgen protect`.

    Attributes:
        photo: Photo to protect.
        output: PNG file to write. JPEG at low quality weakens the protection.
        settings: Strength, steps and seed.
        face: Face to protect in a photo that shows several: the largest, an index (from 0, largest first) or a box.
        encoder: Face encoders to protect against; docs/encoders.md describes them.
        mask: Image of the photo's size, white where it may change. A soft ellipse around the face by default.
        report: Print the similarity to the original photo after JPEG, resizing, cropping, blur and a diffusion pass,
            and how visible the change is.
        base: Base model of the diffusion pass. The built-in one has 128 px, so its pass blurs the face.
        eval_encoder: Face encoders that --report also measures with, which the photo is not protected against.
            Defaults to one that is at hand.
    """

    photo: Annotated[InputPath, tyro.conf.Positional]
    output: Path = Path("protected.png")
    settings: Annotated[ProtectionSettings, tyro.conf.arg(name="")] = field(default_factory=ProtectionSettings)
    face: FaceOption = None
    encoder: Annotated[tuple[EncoderSpec, ...], tyro.conf.arg(aliases=["--encoders"])] = ("dlib-resnet-v1",)
    mask: InputPath | None = None
    report: bool = False
    base: BaseName = "tiny"
    eval_encoder: Annotated[tuple[EncoderSpec, ...], tyro.conf.arg(aliases=["--unseen"])] = ()

    def check(self) -> None:
        """Check what can be checked without a network."""
        if self.output.suffix.lower() != ".png":
            raise IdgenError(f"--output must end in .png, which keeps the change as it is, got '{self.output}'.")


def run(options: Annotated[ProtectOptions, tyro.conf.arg(name="")]) -> None:
    """Change a photo a little so that face encoders do not recognise the person.

    idgen protect anna.jpg --output protected.png --report

    It protects this photo against these encoders and similar ones. Other and future encoders may recognise the person.
    """
    options.check()
    choice = read_face_option(options.face)
    original = load_photo(options.photo)
    allowed = None if options.mask is None else load_photo(options.mask).mean(2) / 255
    from ..faces import FaceAnalyzer, open_encoder
    from ..losses.embedders import open_embedder
    from ..provenance.protection import protect
    from ..provenance.protection_report import DIFFUSION_PASS, EDITS

    embedders = [open_embedder(name) for name in options.encoder]
    others = [open_encoder(name) for name in options.eval_encoder]
    if options.report and not others:
        others = _others({embedder.name for embedder in embedders})
    analyzer = FaceAnalyzer()
    found = analyzer.find(original, choice)
    protected = protect(original, found.landmarks, embedders, options.settings, allowed, progress=True)
    file = io.BytesIO()
    Image.fromarray(protected).save(file, "PNG")
    write_bytes(options.output, file.getvalue(), ProvenanceError)
    if options.report:
        edits = {**EDITS, DIFFUSION_PASS: _diffusion_pass(options.base, found.landmarks)}
        _report(original, protected, analyzer, [open_encoder(name) for name in options.encoder] + others, edits)
    show(options.output)


def _others(used: Set[str]) -> list[FaceEncoder]:
    """A face encoder that is at hand and was not used; none, with a warning, if there is no other."""
    from ..evaluation.judges import UNSEEN
    from ..faces import DlibEncoder, open_encoder

    for name in (DlibEncoder.name, UNSEEN):
        with suppress(CheckpointError, MissingDependencyError):
            if name not in used:
                return [open_encoder(name)]
    warn("No other face encoder is at hand: name one that the photo is not protected against with --eval-encoder.")
    return []


def _diffusion_pass(base: str, landmarks: np.ndarray) -> Edit:
    import torch

    from ..base_model import open_base
    from ..provenance.protection_report import diffusion_pass

    pipeline = open_base(base, torch.float32)
    side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    return diffusion_pass(pipeline, landmarks, side)


def _report(
    original: np.ndarray,
    protected: np.ndarray,
    analyzer: FaceAnalyzer,
    encoders: Sequence[FaceEncoder],
    edits: Mapping[str, Edit],
) -> None:
    """Print the similarities and the visibility."""
    from ..evaluation.scores import yardstick
    from ..provenance.protection_report import measure_protection, measure_visibility

    table = Table("encoder", "after", "original", "protected", "strangers", "threshold")
    for row in measure_protection(original, protected, analyzer.detector, encoders, edits):
        table.add_row(
            visible(row.encoder),
            row.edit,
            *("no face" if np.isnan(value) else f"{value:.3f}" for value in (row.before, row.after)),
            *("" if value is None else f"{value:.3f}" for value in yardstick(row.encoder)),
        )
    Console().print(table)
    seen = measure_visibility(original, protected)
    say(f"PSNR {seen.psnr:.1f} dB, SSIM {seen.ssim:.4f}, largest change {seen.largest} of 255")
