"""Settings of the faces in generated pictures; `faces.py` reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ..errors import TrainingError
from ..inputs import InputPlace


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
        detector: YuNet model file (ONNX) to detect faces with instead of dlib's detector.
        rollout_steps: Read the faces of pictures generated from noise in this many steps instead, as PuLID does; 0 to
            read predictions.
        distilled: LoRA that is active in the rollout only and makes few steps enough (LCM, Lightning): a folder or a
            hub id.
        scheduler: Scheduler of the rollout, by its name in diffusers.
        prompt: Prompt of the rollout.
    """

    steps: int = 1
    landmarks: Literal["target", "prediction"] = "target"
    detector: InputPlace | None = None
    rollout_steps: int = 0
    distilled: str | None = None
    scheduler: str = "LCMScheduler"
    prompt: str = "portrait, color, cinematic"

    def __post_init__(self) -> None:
        if self.steps < 1 or self.rollout_steps < 0:
            raise TrainingError(
                f"faces.steps must be >= 1 and faces.rollout_steps >= 0, not {self.steps} and {self.rollout_steps}."
            )
