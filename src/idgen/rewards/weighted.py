"""The weighted sum of the rewards of a configuration."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import LossError
from ..losses import FaceEmbedder, WeightedTerms
from .table import REWARDS, RewardsConfig


@dataclass(frozen=True, eq=False)
class WeightedRewards(WeightedTerms):
    """A weighted sum of named rewards: inputs → `values`, (batch,), and a log of each reward.

    A reward is any callable that returns one number per sample: a tensor, an array or a list. A reward that returns no
    tensor has no gradient, and works with methods that need none. ID-Aligner (arXiv 2404.15449) uses the weights 0.2
    for identity and 0.001 for aesthetics. The identity reward of a sample without a face is 0.

    Raises:
        LossError: As for `WeightedTerms`, or a reward has a gate: finished pictures have no timestep.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        gated = [name for name, term in self.terms.items() if term.gate is not None]
        if gated:
            raise LossError(f"Rewards are for finished pictures, which have no timestep; {gated} have a gate.")


def make_rewards(config: RewardsConfig, embedder: FaceEmbedder, device: torch.device) -> WeightedRewards:
    """The rewards of a configuration.

    Args:
        config: Weights and settings; the hinge is that of the default face encoder if it is None.
        embedder: Face encoder of the identity reward.
        device: Device of the networks.

    Raises:
        CheckpointError: A network cannot be opened.
        LossError: No reward has a weight, or a custom function is not found.
    """
    settings = config.fitted().settings
    settings["over"] = config.over or "mean"  # of the target alone
    terms = REWARDS.terms(config.weights, {**settings, "embedder": embedder, "device": device})
    return WeightedRewards(terms, config.over_people)
