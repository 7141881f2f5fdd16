"""The methods of reward training: how pictures are generated, and how a reward becomes a gradient.

Each method refuses settings that it does not read. docs/training.md compares their costs. The defaults are the
recommended configuration, that of docs/results.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

from ..errors import TrainingError
from ..inputs import InputPlace
from .face_config import DecoderConfig

if TYPE_CHECKING:
    from .rollout import Rollout


@dataclass(frozen=True, kw_only=True)
class RolloutConfig:
    """How pictures are generated.

    Attributes:
        method: Training method: alignprop, refl, draft, draft-lv, swap, ddpo or grpo. Each has its own settings.
        steps: Denoising steps.
        detector: YuNet model file (ONNX) to detect faces with instead of dlib's detector.
    """

    method: str
    steps: int = 8
    detector: InputPlace | None = None

    def check_at_least(self, **least: int) -> None:
        """Check integers.

        Raises:
            TrainingError: One of them is smaller.
        """
        for name, value in least.items():
            if getattr(self, name) < value:
                raise TrainingError(f"{name} must be at least {value}, not {getattr(self, name)}.")


@dataclass(frozen=True, kw_only=True)
class BackpropConfig(RolloutConfig, DecoderConfig):
    """Rewards whose gradient is propagated through the picture.

    Attributes:
        guidance_scale: Guidance scale of the rollout. Use that of later inference; 1 is cheapest, as in ReFL.
        preservation: Weight of the loss that keeps the base model's prediction outside the face. Rewards alone reduce
            prompt fidelity.
        denoising: Weight of the denoising loss on the photos (ReFL's pre-training loss, ID-Aligner's LoRA mode).
    """

    guidance_scale: float = 3.0
    preservation: float = 1.0
    denoising: float = 1.0


@dataclass(frozen=True, kw_only=True)
class FromNoiseConfig(BackpropConfig):
    """Pictures that are generated from noise.

    Attributes:
        scheduler: Scheduler, by its name in diffusers; by default that of the base model.
        style: Weight of the loss that keeps the colours and the contrast of the base model's picture of the same noise
            and prompt. It takes a second rollout, without a gradient. A scheduler that adds noise adds other noise
            there.
    """

    scheduler: str | None = None
    style: float = 0.0

    def make_rollout(self, scheduler: Any) -> Rollout:
        """The rollout with the scheduler of these settings, or with the base model's `scheduler`.

        Raises:
            TrainingError: The scheduler is not known or does not fit.
        """
        from .rollout import Rollout, make_scheduler

        numbers = {name: getattr(self, name) for name in ("last", "copies") if hasattr(self, name)}
        method: Any = self.method
        return Rollout(scheduler=make_scheduler(self.scheduler, scheduler), method=method, steps=self.steps, **numbers)


@dataclass(frozen=True, kw_only=True)
class LastStepsConfig(FromNoiseConfig):
    """A gradient through the last steps.

    Attributes:
        last: Number of last steps that have a gradient (draft), or may have one (alignprop, refl).
    """

    last: int = 6

    def __post_init__(self) -> None:
        if not 1 <= self.last <= self.steps:
            raise TrainingError(f"last must lie between 1 and steps={self.steps}, not {self.last}.")


@dataclass(frozen=True, kw_only=True)
class ReFLConfig(LastStepsConfig):
    """A reward on x0 as predicted by one of the last steps (ImageReward, ID-Aligner)."""

    method: Literal["refl"] = "refl"


@dataclass(frozen=True, kw_only=True)
class DRaFTConfig(LastStepsConfig):
    """A reward on the final picture, with a gradient through the last steps (DRaFT-K)."""

    method: Literal["draft"] = "draft"


@dataclass(frozen=True, kw_only=True)
class DRaFTLVConfig(FromNoiseConfig):
    """A reward on the final picture, noised to the last step again several times (DRaFT-LV).

    Attributes:
        copies: Noised copies of each picture.
    """

    method: Literal["draft-lv"] = "draft-lv"
    copies: int = 2

    def __post_init__(self) -> None:
        self.check_at_least(steps=1, copies=1)


@dataclass(frozen=True, kw_only=True)
class AlignPropConfig(LastStepsConfig):
    """A reward on the final picture, with a gradient through a random number of last steps (AlignProp)."""

    method: Literal["alignprop"] = "alignprop"


@dataclass(frozen=True, kw_only=True)
class SwapConfig(BackpropConfig):
    """Photos with another person's face are edited back in one or few steps, and compared with the photos (DreamID).
    The shards need triplets: `idgen prepare --cache triplets`.

    Attributes:
        steps: Denoising steps; all have a gradient.
        guidance_scale: Guidance scale. A blurred prediction in one step needs none.
        strength: Share of the noise schedule that the photos are noised by, in (0, 1]; that of `swap`.
        supervision: Weight of the squared error of the latents of the face, against the photo.
    """

    method: Literal["swap"] = "swap"
    steps: int = 1
    guidance_scale: float = 1.0
    strength: float = 0.8
    supervision: float = 1.0

    def __post_init__(self) -> None:
        self.check_at_least(steps=1)
        if not 0 < self.strength <= 1 or self.supervision < 0:
            raise TrainingError(
                f"strength must be above 0 and at most 1, and supervision at least 0, not {self.strength} and "
                f"{self.supervision}."
            )


@dataclass(frozen=True, kw_only=True)
class DDPOConfig(RolloutConfig):
    """Any reward, by the policy gradient: each picture is compared with the others of the batch (DDPO-SF).

    Attributes:
        learned: Number of steps, chosen at random, that have a gradient in an update.
    """

    method: Literal["ddpo"] = "ddpo"
    learned: int = 5

    def __post_init__(self) -> None:
        self.check_at_least(steps=2, learned=1)  # the last step adds no noise, so nothing is learned from it


@dataclass(frozen=True, kw_only=True)
class GRPOConfig(RolloutConfig):
    """Any reward: each picture is compared with others of the same prompt and person (GRPO, Flow-GRPO).

    Attributes:
        learned: Number of steps, chosen at random, that have a gradient in an update.
        group: Pictures per prompt and person; memory grows with train_batch_size times group.
        updates: Updates from the same pictures.
        clip: Clipping range ε of the probability ratio. It is small, since log-probabilities are means over the
            elements of a latent.
        kl: Weight β of the KL divergence from the policy at the start of the run; 0 for none.
    """

    method: Literal["grpo"] = "grpo"
    learned: int = 5
    group: int = 8
    updates: int = 2
    clip: float = 1e-4
    kl: float = 0.01

    def __post_init__(self) -> None:
        self.check_at_least(steps=2, learned=1, group=2, updates=1)
        if self.clip <= 0 or self.kl < 0:
            raise TrainingError(f"GRPO needs clip > 0 and kl >= 0, not clip={self.clip} and kl={self.kl}.")


MethodConfig: TypeAlias = (
    AlignPropConfig | ReFLConfig | DRaFTConfig | DRaFTLVConfig | SwapConfig | DDPOConfig | GRPOConfig
)
METHODS: dict[str, type[MethodConfig]] = {
    kind.__dataclass_fields__["method"].default: kind
    for kind in (AlignPropConfig, ReFLConfig, DRaFTConfig, DRaFTLVConfig, SwapConfig, DDPOConfig, GRPOConfig)
}
"""Name of each method → its configuration."""
