"""A method's configuration → its training step."""

from __future__ import annotations

from typing import Any

from ..losses import FaceEmbedder
from .base import BaseModel
from .config import LoopConfig
from .ddpo import DDPOStep
from .faces import open_decoder, open_detector
from .grpo import GRPOStep
from .judges import make_rewards
from .methods import DDPOConfig, GRPOConfig, MethodConfig
from .reward_backprop import RewardStep
from .step import TrainingStep
from .trainable import TrainableModules


def make_reward_step(
    config: MethodConfig, base: BaseModel, modules: TrainableModules, embedder: FaceEmbedder, loop: LoopConfig
) -> TrainingStep:
    """Make the step of a method.

    Raises:
        CheckpointError: A network cannot be opened.
        TrainingError: The scheduler or a reward of one's own is not known.
        LossError: Nothing is rewarded.
    """
    rewards = make_rewards(config, embedder, base.unet.device)
    networks: dict[str, Any] = {"detector": open_detector(config.detector), **modules._asdict()}
    if isinstance(config, GRPOConfig):
        return GRPOStep(base, rewards=rewards, config=config, passes=loop.gradient_accumulation_steps, **networks)
    if isinstance(config, DDPOConfig):
        return DDPOStep(base, rewards=rewards, config=config, **networks)
    decoder = open_decoder(config, base)
    return RewardStep(base, rewards=rewards, config=config, embedder=embedder, decoder=decoder, **networks)
