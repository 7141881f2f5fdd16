"""A method's configuration → its training step."""

from __future__ import annotations

from typing import Any

from ..losses import FaceEmbedder
from ..rewards import WeightedRewards
from .base import BaseModel
from .config import LoopConfig
from .ddpo import DDPOStep
from .grpo import GRPOStep
from .judges import make_rewards
from .methods import DDPOConfig, DifferentiableConfig, DRaFTLVConfig, GRPOConfig, LastStepsConfig, MethodConfig
from .openers import open_decoder, open_detector
from .parts import Parts
from .rewarder import RewardStep
from .rollout import Rollout, make_scheduler
from .step import TrainingStep


def make_reward_step(
    config: MethodConfig, base: BaseModel, parts: Parts, embedder: FaceEmbedder, loop: LoopConfig
) -> TrainingStep:
    """Make the step of a method.

    Raises:
        CheckpointError: A network cannot be opened.
        TrainingError: The scheduler or a reward of one's own is not known.
        LossError: Nothing is rewarded.
    """
    rewards = make_rewards(config, embedder, base.unet.device)
    detector: Any = open_detector(config.detector)
    black_box = {"rewards": rewards, "detector": detector, "steps": config.steps, **parts._asdict()}
    if isinstance(config, GRPOConfig):
        settings = {name: getattr(config, name) for name in ("learned", "group", "updates", "clip", "kl")}
        return GRPOStep(base, **black_box, **settings, passes=loop.gradient_accumulation_steps)
    if isinstance(config, DDPOConfig):
        return DDPOStep(base, **black_box, learned=config.learned)
    return _differentiable(config, base, parts, rewards, embedder, detector)


def _differentiable(
    config: DifferentiableConfig,
    base: BaseModel,
    parts: Parts,
    rewards: WeightedRewards,
    embedder: FaceEmbedder,
    detector: Any,
) -> RewardStep:
    own: dict[str, Any] = {"method": config.method}
    if isinstance(config, LastStepsConfig):
        own["last"] = config.last
    if isinstance(config, DRaFTLVConfig):
        own |= {"copies": config.copies, "last": 1}
    scheduler = make_scheduler(config.scheduler, base.pipeline.scheduler)
    return RewardStep(
        base,
        **parts._asdict(),
        rollout=Rollout(scheduler=scheduler, steps=config.steps, **own),
        rewards=rewards,
        embedder=embedder,
        decoder=open_decoder(config, base),
        detector=detector,
        preservation=config.preservation,
        denoising=config.denoising,
        guidance_scale=config.guidance_scale,
    )
