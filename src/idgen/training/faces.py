"""The faces in generated pictures, for losses and rewards: positions, decoded crops and embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderTiny

from ..errors import CheckpointError, DataError, TrainingError
from ..faces import DlibDetector, FaceAnalyzer, FaceDetector
from ..losses import FaceDecoder, FaceEmbedder, find_landmarks
from ..losses.parametrisation import at_least_float32
from .base import BaseModel

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
"""Pictures of the folder for the triplet loss."""


@dataclass(frozen=True, kw_only=True)
class DecoderConfig:
    """How the face's part of a latent is decoded.

    Attributes:
        vae: Tiny VAE (`AutoencoderTiny`) that decodes in place of the base model's: a folder or a hub id.
        margin: Latent pixels decoded around a face; docs/losses.md has the resulting error.
        checkpointing: Recompute the decoder's activations in the backward pass: less memory, more time.
    """

    vae: str | None = None
    margin: int = 4
    checkpointing: bool = True


@dataclass(frozen=True, kw_only=True)
class FaceConfig(DecoderConfig):
    """How the faces for identity losses are generated.

    Attributes:
        steps: Denoising steps from the noisy latent to the picture; more steps are sharper and cost a UNet pass each.
        landmarks: Where the face is: at the landmarks of the target photo, or where a detector finds it in the
            prediction.
        detector: YuNet model file (ONNX) to detect faces with; by default dlib's detector, which is many times slower.
        rollout_steps: Read the faces of pictures generated from noise in this many steps instead, as PuLID does; 0 to
            read predictions.
        distilled: LoRA that is active in the rollout only and makes few steps enough (LCM, Lightning): a folder or a
            hub id.
        scheduler: Scheduler of the rollout, by its name in diffusers.
        prompt: Prompt of the rollout.
    """

    steps: int = 1
    landmarks: Literal["target", "prediction"] = "target"
    detector: str | None = None
    rollout_steps: int = 0
    distilled: str | None = None
    scheduler: str = "LCMScheduler"
    prompt: str = "portrait, color, cinematic"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.rollout_steps < 0:
            raise TrainingError(
                f"faces.steps must be >= 1 and faces.rollout_steps >= 0, not {self.steps} and {self.rollout_steps}."
            )


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
    """A decoder of faces with the base model's VAE, or with the tiny VAE of the configuration.

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


class GeneratedFaces(NamedTuple):
    """One face per sample.

    Attributes:
        crops: (batch, 3, size, size), aligned for the face encoder, with the graph.
        landmarks: (batch, 5, 2), in pixels of the picture.
        found: (batch,), whether there is a face.
    """

    crops: torch.Tensor
    landmarks: torch.Tensor
    found: torch.Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class FaceReader:
    """Latents → aligned crops of the faces in them.

    Attributes:
        embedder: Face encoder.
        decoder: Decodes the face's part of a latent.
        detector: Finds the faces in the decoded pictures. Without a detector they are assumed at the landmarks of the
            targets (WithAnyone's "GT-aligned", arXiv 2510.14975), also where no face can be seen yet.
    """

    embedder: FaceEmbedder
    decoder: FaceDecoder
    detector: FaceDetector | None = None

    def __call__(self, latents: torch.Tensor, landmarks: torch.Tensor, found: torch.Tensor) -> GeneratedFaces:
        """Crop the faces.

        Args:
            latents: x0, (batch, channels, height, width).
            landmarks: (batch, 5, 2), of the targets, pixels.
            found: (batch,), whether the target has a face.
        """
        whole = None
        if self.detector is not None:
            whole = self.decoder.whole(latents)
            landmarks, found = find_landmarks(whole.images, self.detector)
        images, offsets = self.decoder(latents, self.embedder.boxes(landmarks), whole)
        crops = self.embedder.crop(at_least_float32(images), landmarks - offsets[:, None])
        return GeneratedFaces(crops, landmarks, found)


def embed_prior(folder: str) -> torch.Tensor:
    """Embed the largest face of each picture in a folder, for the triplet loss (ID-Booth, arXiv 2504.07392).

    Returns:
        (n, dim), by the encoder of the losses.

    Raises:
        DataError: There is no picture with a face.
    """
    files = sorted(path for path in Path(folder).glob("*") if path.suffix.lower() in SUFFIXES)
    analyzer = FaceAnalyzer()
    faces = [found[0] for path in files if (found := analyzer.analyze(path))]
    if not faces:
        raise DataError(
            f"None of the {len(files)} pictures in '{folder}' shows a face: generate pictures of people with the base "
            f"model."
        )
    return torch.from_numpy(np.stack([face.embedding for face in faces]))


def face_mask(points: torch.Tensor, found: torch.Tensor, height: int, width: int) -> torch.Tensor:
    """Landmarks (batch, 5, 2) in latent pixels → (batch, 1, height, width), 1 in the box around each face."""
    middle = points.mean(1)
    reach = 1.25 * (points.amax(1) - points.amin(1)).amax(1)  # from the middle of the landmarks to hair and chin
    y = torch.arange(height, device=points.device) + 0.5
    x = torch.arange(width, device=points.device) + 0.5
    inside_y = (y[None] - middle[:, 1:]).abs() <= reach[:, None]
    inside_x = (x[None] - middle[:, :1]).abs() <= reach[:, None]
    mask = inside_y[:, None, :, None] & inside_x[:, None, None, :]
    return (mask & found[:, None, None, None]).float()
