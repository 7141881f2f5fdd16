"""The networks that look at faces in a run: a detector, and the decoder of the faces' parts of latents."""

from __future__ import annotations

from typing import Protocol

from diffusers import AutoencoderTiny

from ..errors import CheckpointError
from ..faces import DlibDetector, FaceDetector
from ..losses import FaceDecoder
from .base import BaseModel


class DecoderConfig(Protocol):
    """Settings of a `FaceDecoder`; `vae` is a folder or hub id of a tiny VAE in place of the base's."""

    @property
    def vae(self) -> str | None: ...
    @property
    def margin(self) -> int: ...
    @property
    def checkpointing(self) -> bool: ...


def open_detector(yunet: str | None) -> FaceDetector:
    """dlib's detector, or YuNet from a file.

    Raises:
        CheckpointError: The file cannot be opened.
        MissingDependencyError: OpenCV is not installed.
    """
    if yunet is None:
        return DlibDetector()
    from ..faces.opencv import YuNetDetector

    return YuNetDetector(yunet)


def open_decoder(config: DecoderConfig, base: BaseModel) -> FaceDecoder:
    """The base's VAE, or the tiny one that stands in for it, on the faces' parts of latents.

    Raises:
        CheckpointError: The tiny VAE cannot be opened.
    """
    vae = base.pipeline.vae
    if config.vae is not None:
        try:
            vae = AutoencoderTiny.from_pretrained(config.vae, torch_dtype=base.unet.dtype).to(vae.device)
        except (OSError, ValueError) as error:
            raise CheckpointError(f"'{config.vae}' could not be opened as a tiny VAE: {error}") from error
        vae.eval().requires_grad_(False)
    return FaceDecoder(vae=vae, margin=config.margin, checkpointing=config.checkpointing)
