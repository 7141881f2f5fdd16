"""The faces in generated pictures, for losses and rewards: positions, decoded crops and embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from diffusers import AutoencoderTiny

from ..errors import CheckpointError, DataError
from ..faces import DlibDetector, FaceAnalyzer, FaceDetector, FaceEncoder
from ..faces.quick import QuickDetector
from ..losses import FaceDecoder, FaceEmbedder, find_people
from ..losses.parametrisation import at_least_float32
from .base import BaseModel
from .batch import Batch
from .face_config import DecoderConfig

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp"}
"""Pictures of the folder for the triplet loss."""


def open_detector(yunet: str | None, embedder: FaceEmbedder, people: int = 1) -> FaceDetector:
    """YuNet from a file, or else the detector that belongs to a face encoder, dlib's for encoders of faces.

    YuNet and dlib's detector find the largest faces, as many as people; see `QuickDetector`.

    Raises:
        CheckpointError: The file cannot be opened.
        MissingDependencyError: OpenCV is not installed.
    """
    if yunet is None:
        return embedder.detector or QuickDetector(DlibDetector(), people)
    from ..faces.opencv import YuNetDetector

    return QuickDetector(YuNetDetector(yunet), people)


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


class FacesWanted(NamedTuple):
    """The faces that generated pictures should show; rows of several faces per picture are next to each other.

    Attributes:
        landmarks: (faces, 5, 2), of the targets, pixels.
        found: (faces,), whether the target has this face.
        embeds: (faces, dim), to tell the people in a picture apart.
    """

    landmarks: torch.Tensor
    found: torch.Tensor
    embeds: torch.Tensor

    @classmethod
    def of(cls, batch: Batch) -> FacesWanted:
        """The people of a batch."""
        return cls(batch.landmarks, batch.face_found & batch.known.flatten(), batch.target_embeds)


class GeneratedFaces(NamedTuple):
    """Faces in generated pictures, (batch, …), or (faces, …) of several in each.

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

    def __call__(self, latents: torch.Tensor, faces: FacesWanted) -> GeneratedFaces:
        """Crop the faces.

        Args:
            latents: x0, (batch, channels, height, width).
            faces: Those of the targets; several per picture are next to each other.
        """
        whole, landmarks, found = None, faces.landmarks, faces.found
        if self.detector is not None:
            whole = self.decoder.whole(latents)
            landmarks, found = find_people(whole.images, self.detector, self.embedder, faces.embeds, found)
        images, offsets = self.decoder(latents, self.embedder.boxes(landmarks), whole)
        crops = self.embedder.crop(at_least_float32(images), landmarks - offsets[:, None])
        return GeneratedFaces(crops, landmarks, found)


def embed_prior(folder: str, encoder: FaceEncoder) -> torch.Tensor:
    """Embed the largest face of each picture in a folder, for the triplet loss (ID-Booth, arXiv 2504.07392).

    Args:
        folder: Folder of pictures.
        encoder: Face encoder of the losses.

    Returns:
        (n, dim).

    Raises:
        DataError: There is no picture with a face.
    """
    files = sorted(path for path in Path(folder).glob("*") if path.suffix.lower() in SUFFIXES)
    analyzer = FaceAnalyzer(encoder=encoder)
    faces = [found[0] for path in files if (found := analyzer.analyze(path))]
    if not faces:
        raise DataError(
            f"None of the {len(files)} pictures in '{folder}' shows a face: generate pictures of people with the base "
            f"model."
        )
    return torch.from_numpy(np.stack([face.embedding for face in faces]))


def face_mask(points: torch.Tensor, found: torch.Tensor, height: int, width: int, soft: bool = False) -> torch.Tensor:
    """Landmarks (batch, 5, 2) in latent pixels → (batch, 1, height, width), 1 in the box around each face.

    A soft mask falls to 0 over a quarter of the box's side.
    """
    middle = points.mean(1)
    reach = 1.25 * (points.amax(1) - points.amin(1)).amax(1)  # from the middle of the landmarks to hair and chin
    y = torch.arange(height, device=points.device) + 0.5
    x = torch.arange(width, device=points.device) + 0.5
    away_y, away_x = (at[None] - middle[:, i : i + 1] for i, at in ((1, y), (0, x)))
    away = torch.maximum(away_y.abs()[:, None, :, None], away_x.abs()[:, None, None, :])
    reach = reach[:, None, None, None]
    mask = (3 - 2 * away / reach.clamp(min=1e-6)).clamp(0, 1) if soft else (away <= reach).float()
    return mask * found[:, None, None, None]
