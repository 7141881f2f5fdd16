"""The faces that a step's losses read: made from predictions, or drawn from nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch

from ..faces import FaceDetector
from ..losses import FaceDecoder, FaceEmbedder, find_landmarks
from ..losses.parametrisation import at_least_float32
from .distilled import DistilledLoRA
from .rollout import Rollout


class GeneratedFaces(NamedTuple):
    """One for each sample.

    Attributes:
        embeds: (batch, dim), with the graph.
        found: (batch,), whether there is one.
    """

    embeds: torch.Tensor
    found: torch.Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class FaceReader:
    """Clean latents → embeddings of the faces in them.

    Attributes:
        embedder: Face encoder.
        decoder: Of the faces' part of a latent.
        detector: Finds the faces in what was predicted; without one they are where the target's are (WithAnyone's
            "GT-aligned", arXiv 2510.14975), which also serves where no face can be seen yet.
    """

    embedder: FaceEmbedder
    decoder: FaceDecoder
    detector: FaceDetector | None = None

    def __call__(self, clean: torch.Tensor, landmarks: torch.Tensor, found: torch.Tensor) -> GeneratedFaces:
        """Embed.

        Args:
            clean: x0, (batch, channels, height, width).
            landmarks: (batch, 5, 2), the target's, pixels.
            found: (batch,), whether the target has a face.
        """
        whole = None
        if self.detector is not None:
            whole = self.decoder.whole(clean)
            landmarks, found = find_landmarks(whole.images, self.detector)
        images, offsets = self.decoder(clean, self.embedder.boxes(landmarks), whole)
        return GeneratedFaces(self.embedder(at_least_float32(images), landmarks - offsets[:, None]), found)


@dataclass(frozen=True, eq=False, kw_only=True)
class ShortRollout:
    """Pictures drawn from pure noise in few steps, for losses that want finished faces (PuLID, arXiv 2404.16022).

    Attributes:
        rollout: Draws; few steps need a distilled model.
        distilled: Makes one of the base model, unless it is one.
        prompt: The authors'.
    """

    rollout: Rollout
    distilled: DistilledLoRA | None = None
    prompt: str = "portrait, color, cinematic"
