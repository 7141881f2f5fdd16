"""The table of face encoders, one row each: how they are opened and fed, and who may use them.

The command line, the demo, the model card and docs/encoders.md read the table. A new encoder is a class and a row.
What an adapter reads beside the embedding is part of the `Identity` (see `idgen.enrollment`).
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import EncoderMismatchError, StatisticsError
from ..inputs import EncoderSpec as EncoderSpec
from ..names import nearest
from ..own_code import load_object
from .detectors import DlibDetector, FaceDetector
from .dlib_encoder import DlibEncoder
from .encoder import FaceEncoder, NetworkInput
from .expression import ExpressionEncoder
from .inner_encoder import InnerEncoder
from .insightface import InsightFaceDetector, InsightFaceEncoder, InsightFacePack
from .onnx_encoder import ARCFACE, IMAGENET, OnnxEncoder
from .opencv import SFaceEncoder
from .parts_encoder import PartsEncoder
from .statistics import EncoderStatistics


@dataclass(frozen=True, kw_only=True)
class EncoderRow:
    """A kind of face encoder.

    Attributes:
        open: What follows the name on the command line ("" if nothing does) → the encoder.
        argument: What follows the name, with the mark before it: "/PACK" or ":FILE.onnx".
        default: Argument that is used if none is given; None if it must be given.
        detector: The detector that belongs to the encoder; None for dlib's.
        read: How the network is fed; None if its file says it.
        dim: Length of an embedding; None if its file says it.
        gradient: Whether losses and rewards can use it.
        licence: Licence of the weights.
        help: What it is, in one line.
    """

    open: Callable[[str], FaceEncoder]
    argument: str = ""
    default: str | None = ""
    detector: Callable[[Any], FaceDetector] | None = None
    read: NetworkInput | None = None
    dim: int | None = None
    gradient: bool = True
    licence: str
    help: str


ENCODERS: dict[str, EncoderRow] = {
    DlibEncoder.name: EncoderRow(
        open=lambda _: DlibEncoder(),
        read=DlibEncoder.read,
        dim=DlibEncoder.dim,
        licence="CC0",
        help="dlib's face recognition ResNet, the default; works offline",
    ),
    "insightface": EncoderRow(
        open=lambda pack: InsightFaceEncoder(InsightFacePack(pack)),
        argument="/PACK",
        default=None,
        detector=lambda encoder: InsightFaceDetector(encoder.pack),
        licence="that of the pack: non-commercial research for buffalo_l and antelopev2, Apache-2.0 for AuraFace",
        help="the recogniser of an insightface pack, a name or a folder, with its detector",
    ),
    SFaceEncoder.name: EncoderRow(
        open=SFaceEncoder,
        argument=":FILE-OR-HUB-ID",
        default=SFaceEncoder.source,
        read=SFaceEncoder.read,
        dim=SFaceEncoder.dim,
        licence="Apache-2.0",
        help="SFace, from the hub or a file",
    ),
    "arcface": EncoderRow(
        open=lambda file: OnnxEncoder(file, ARCFACE),
        argument=":FILE.onnx",
        default=None,
        read=ARCFACE,
        licence="that of the file",
        help="an ONNX file that is fed as ArcFace networks are",
    ),
    "inner": EncoderRow(
        open=lambda spec: InnerEncoder(open_encoder(spec)),
        argument="/ENCODER",
        default=None,
        licence="that of the encoder",
        help="the last feature map before the embedding of another encoder, for the projection `rows`",
    ),
    "parts": EncoderRow(
        open=lambda spec: PartsEncoder(open_encoder(spec)),
        argument="/ENCODER",
        default=None,
        licence="that of the encoder",
        help="another encoder's feature maps, averaged over the face, eyes, nose and mouth, for the projection `rows`",
    ),
    ExpressionEncoder.name: EncoderRow(
        open=lambda _: ExpressionEncoder(),
        dim=ExpressionEncoder.dim,
        gradient=False,
        licence="non-commercial research: dlib's 68 landmarks were trained on iBUG 300-W",
        help="the expression of a face, for adapters that read it beside a person: measures of mouth, eyes and brows",
    ),
    "imagenet": EncoderRow(
        open=lambda file: OnnxEncoder(file, IMAGENET),
        argument=":FILE.onnx",
        default=None,
        read=IMAGENET,
        licence="that of the file",
        help="an ONNX file that is fed with ImageNet's mean and deviation",
    ),
}
"""Name → row."""

OWN = "FILE.py:CLASS"

_opened: dict[str, str] = {}
"""Stored name → what opened it, for encoders whose name does not say where they are."""


def open_encoder(spec: str) -> FaceEncoder:
    """Open a face encoder that the user names.

    Args:
        spec: As on the command line; see `encoder_forms`. A custom encoder is FILE.py:CLASS or MODULE:CLASS,
            whose code is executed; so pass no text from a file, but `spec_of` a name that is stored with embeddings.

    Raises:
        EncoderMismatchError: There is no such encoder, or a custom class is not an encoder.
        CheckpointError: It cannot be opened.
        MissingDependencyError: A package that it needs is not installed.
    """
    row = _row(spec)
    encoder = _own(spec) if row is None else row[0].open(row[1])
    _opened[encoder.name] = spec
    return encoder


def spec_of(name: str) -> str:
    """Return the specification that opens an encoder, given the name stored with its embeddings.

    Some names open by themselves. Others, such as those of ONNX files, are known after `open_encoder` has opened the
    encoder in this process.

    Raises:
        EncoderMismatchError: The encoder is not known.
    """
    if name in _opened:
        return _opened[name]
    if _row(name) is None:
        raise EncoderMismatchError(
            f"The face encoder '{name}' is not built in. Pass it as --encoder ({encoder_forms()}). "
            "In Python, call idgen.faces.open_encoder first, or give load_id_adapter a face_analyzer."
        )
    return name


def register_encoder(spec: str) -> str:
    """Make the encoder that the user names known to `spec_of` in this process; returns its stored name."""
    name = name_of(spec)
    _opened[name] = spec
    return name


def name_of(spec: str) -> str:
    """The name that is stored with an encoder's embeddings; raises as `open_encoder`.

    An encoder whose name does not say where it is must be opened to learn its name; `spec_of` knows it afterwards.
    """
    return spec if _row(spec) is not None and re.fullmatch(r"[\w.-]+(/[\w.-]+)?", spec) else open_encoder(spec).name


def detector_of(spec: str, encoder: FaceEncoder) -> FaceDetector:
    """The detector that belongs to an encoder, and dlib's for all others."""
    row = _row(spec)
    if row is not None and row[0].detector is not None:
        return row[0].detector(encoder)
    return default_detector(encoder)


def default_detector(encoder: FaceEncoder) -> FaceDetector:
    """Finds what an encoder embeds: its own `detector` if it has one, dlib's for encoders of faces."""
    return getattr(encoder, "detector", None) or DlibDetector()


def encoder_forms() -> str:
    """The forms in which the command line accepts an encoder."""
    return ", ".join([*(f"{name}{row.argument}" for name, row in ENCODERS.items()), OWN, "MODULE:CLASS"])


def encoders_table() -> str:
    """The table in the documentation."""
    head = "| name | what | crop | input | length | gradient | statistics | licence |\n" + "| --- " * 8 + "|"
    return "\n".join([head, *(_markdown(name, row) for name, row in ENCODERS.items())])


def _markdown(name: str, row: EncoderRow) -> str:
    unknown = "of the file" if row.argument else "–"
    crop, fed = (unknown, unknown) if row.read is None else (f"{row.read.size} px", str(row.read))
    try:
        known = f"{EncoderStatistics.packaged(name).people:,} people"
    except StatisticsError:
        known = "`idgen calibrate`" if row.gradient else "–"
    cells = (f"`{name}{row.argument}`", row.help, crop, fed, str(row.dim or "of the file"))
    return f"| {' | '.join((*cells, 'yes' if row.gradient else 'no', known, row.licence))} |"


def _row(spec: str) -> tuple[EncoderRow, str] | None:
    """The row of an encoder, and its argument."""
    for name, row in ENCODERS.items():
        mark = row.argument[:1]
        argument = row.default if spec == name else None
        if mark and spec.startswith(name + mark):
            argument = spec.removeprefix(name + mark) or None
        if argument is not None:
            return row, argument
    return None


def _own(spec: str) -> FaceEncoder:
    if spec.endswith(".onnx"):
        raise EncoderMismatchError(f"The input of '{spec}' is not specified: pass arcface:{spec} or imagenet:{spec}.")
    if not re.fullmatch(r".+:\w+", spec):
        if spec in ENCODERS:
            raise EncoderMismatchError(f"'{spec}' needs an argument: {spec}{ENCODERS[spec].argument}.")
        raise EncoderMismatchError(
            f"There is no face encoder '{spec}'.{nearest(spec, ENCODERS)} Use {encoder_forms()}."
        )
    make = load_object(spec, EncoderMismatchError)
    try:
        inspect.signature(make).bind()
    except (TypeError, ValueError) as error:
        raise EncoderMismatchError(f"'{spec}' must be callable without arguments: {error}.") from error
    encoder = make()
    if not isinstance(encoder, FaceEncoder) or not isinstance(encoder.name, str) or not isinstance(encoder.dim, int):
        raise EncoderMismatchError(f"'{spec}' is not a face encoder: it needs name, dim, crop and embed.")
    if not re.fullmatch(r"[\w.@+-]+", encoder.name) or _row(encoder.name) is not None:
        raise EncoderMismatchError(
            f"The encoder '{spec}' has the name '{encoder.name}'. A name has letters, digits and . _ - + @, and "
            "differs from those that are built in."
        )
    return encoder
