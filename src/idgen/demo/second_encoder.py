"""`encoder_at_hand`: an encoder to judge by that the adapters do not read, if this computer has one."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path

from huggingface_hub import try_to_load_from_cache

from ..errors import IdgenError
from ..faces import DlibEncoder, FaceEncoder, open_encoder
from ..faces.opencv import SFaceEncoder

SFACE_FILE = "face_recognition_sface_2021dec.onnx"


def encoder_at_hand(read: Collection[str]) -> FaceEncoder | None:
    """The first encoder that needs no download and is not in `read`: dlib's, SFace, or a pack of insightface.

    Args:
        read: Names of the encoders that the adapters read.
    """
    for spec in _local_specs():
        try:
            encoder = None if spec in read else open_encoder(spec)
        except IdgenError:  # its package is not installed, or its files are damaged
            continue
        if encoder is not None and encoder.name not in read:
            return encoder
    return None


def _local_specs() -> Iterator[str]:
    yield DlibEncoder.name
    file = try_to_load_from_cache(SFaceEncoder.source, SFACE_FILE)
    if isinstance(file, str):
        yield f"{SFaceEncoder.name}:{file}"
    for folder in sorted(Path("~/.insightface/models").expanduser().glob("*/")):
        yield f"insightface/{folder.name}"
