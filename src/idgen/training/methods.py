"""How pictures are drawn to be judged, and what is learned from the rewards: a configuration for each method.

A method refuses settings that it does not read. docs/training.md says which method costs what. The defaults are the
recommended configuration, that of docs/results.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

from ..errors import TrainingError


@dataclass(frozen=True, kw_only=True)
class RewardsConfig:
    """What counts.

    Attributes:
        method: One of alignprop, refl, draft, draft-lv, ddpo, grpo; each has settings of its own.
        steps: Denoising steps.
        detector: YuNet file to find faces with, instead of dlib's detector; it is many times faster.
        identity_weight: Weight of the likeness to the person.
        hinge: Cosine beyond which more likeness counts nothing; if not given, what two photos of a person usually have
            by the encoder. 1 is none.
        aesthetic: Weight of a head over CLIP's features; 0.001 beside 0.2 for the identity in ID-Aligner.
        aesthetic_head: Its safetensors file.
        aesthetic_clip: The CLIP that it was made for.
        structure: Weight of a `StructureScorer`.
        structure_scorer: Its safetensors file.
        own: A reward of one's own, "FILE.py:FUNCTION"; docs/rewards.md says what it may read.
        own_weight: Weight of it.
    """

    method: str
    steps: int = 8
    detector: str | None = None
    identity_weight: float = 5.0
    hinge: float | None = None
    aesthetic: float = 0.0
    aesthetic_head: str | None = None
    aesthetic_clip: str = "openai/clip-vit-large-patch14"
    structure: float = 0.0
    structure_scorer: str | None = None
    own: str | None = None
    own_weight: float = 1.0

    def __post_init__(self) -> None:
        for weight, file in (("aesthetic", "aesthetic_head"), ("structure", "structure_scorer")):
            if getattr(self, weight) and getattr(self, file) is None:
                raise TrainingError(f"The reward '{weight}' needs a file: {file}.")

    def check_at_least(self, **least: int) -> None:
        """Check whole numbers.

        Raises:
            TrainingError: One of them is smaller.
        """
        for name, value in least.items():
            if getattr(self, name) < value:
                raise TrainingError(f"{name} must be at least {value}, not {getattr(self, name)}.")


@dataclass(frozen=True, kw_only=True)
class DifferentiableConfig(RewardsConfig):
    """Rewards whose gradient goes through the picture.

    Attributes:
        scheduler: As diffusers names it; the base model's if not given.
        guidance_scale: As pictures will be drawn; 1 is cheapest, and what ReFL does.
        preservation: Weight of drawing what the base model draws outside the face; without it, rewards cost prompt
            fidelity.
        denoising: Weight of denoising the photos beside it (ReFL's pre-training loss, ID-Aligner's LoRA mode).
        vae: A tiny VAE (`AutoencoderTiny`) that decodes in place of the base's: a folder or a hub id.
        margin: Latent pixels that are decoded around a face; docs/losses.md says how exact that is.
        checkpointing: Whether the decoder is run again in the backward pass instead of kept.
    """

    scheduler: str | None = None
    guidance_scale: float = 3.0
    preservation: float = 1.0
    denoising: float = 1.0
    vae: str | None = None
    margin: int = 4
    checkpointing: bool = True


@dataclass(frozen=True, kw_only=True)
class LastStepsConfig(DifferentiableConfig):
    """A gradient through the last steps.

    Attributes:
        last: How many last steps have a gradient, or may have one.
    """

    last: int = 6

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.last <= self.steps:
            raise TrainingError(f"last must lie between 1 and steps={self.steps}, not {self.last}.")


@dataclass(frozen=True, kw_only=True)
class ReFLConfig(LastStepsConfig):
    """The clean picture as one of the last steps predicts it (ImageReward, ID-Aligner)."""

    method: Literal["refl"] = "refl"


@dataclass(frozen=True, kw_only=True)
class DRaFTConfig(LastStepsConfig):
    """The finished picture, with the gradient through the last steps (DRaFT-K)."""

    method: Literal["draft"] = "draft"


@dataclass(frozen=True, kw_only=True)
class DRaFTLVConfig(DifferentiableConfig):
    """The finished picture, noised again a little several times (DRaFT-LV).

    Attributes:
        copies: How many times each picture is noised.
    """

    method: Literal["draft-lv"] = "draft-lv"
    copies: int = 2

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_at_least(steps=1, copies=1)


@dataclass(frozen=True, kw_only=True)
class AlignPropConfig(LastStepsConfig):
    """The finished picture, with the gradient through a random number of last steps (AlignProp)."""

    method: Literal["alignprop"] = "alignprop"


@dataclass(frozen=True, kw_only=True)
class DDPOConfig(RewardsConfig):
    """Any reward, by the score function: each picture against the others of the batch (DDPO-SF).

    Attributes:
        learned: How many steps, chosen at random, have a gradient in an update.
    """

    method: Literal["ddpo"] = "ddpo"
    learned: int = 5

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_at_least(steps=2, learned=1)


@dataclass(frozen=True, kw_only=True)
class GRPOConfig(RewardsConfig):
    """Any reward: each picture against others of the same prompt and person (GRPO, Flow-GRPO).

    Attributes:
        learned: How many steps, chosen at random, have a gradient in an update.
        group: Pictures of each prompt and person; memory grows with train_batch_size times group.
        updates: Updates from the same pictures.
        clip: How far the ratio of probabilities may move from 1 in these updates.
        kl: Weight of the divergence from the policy that the run begins with; 0 for none.
    """

    method: Literal["grpo"] = "grpo"
    learned: int = 5
    group: int = 8
    updates: int = 2
    clip: float = 1e-4
    kl: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check_at_least(steps=2, learned=1, group=2, updates=1)
        if self.clip <= 0 or self.kl < 0:
            raise TrainingError(f"GRPO needs clip > 0 and kl >= 0, not clip={self.clip} and kl={self.kl}.")


MethodConfig: TypeAlias = AlignPropConfig | ReFLConfig | DRaFTConfig | DRaFTLVConfig | DDPOConfig | GRPOConfig
METHODS: dict[str, Any] = {
    kind.__dataclass_fields__["method"].default: kind
    for kind in (AlignPropConfig, ReFLConfig, DRaFTConfig, DRaFTLVConfig, DDPOConfig, GRPOConfig)
}
"""Name → configuration."""
