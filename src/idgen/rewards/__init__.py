"""Rewards, each a callable that returns one value per picture; higher is better."""

from .aesthetic import AestheticHead, AestheticReward, ClipImageEmbeds
from .distortion import Distortion, PreferencePairs
from .guard import RewardHackingGuard, Verdict
from .identity import IdentityReward
from .structure import StructureScorer, bradley_terry_loss
from .weighted import WeightedRewards

__all__ = [
    "AestheticHead",
    "AestheticReward",
    "ClipImageEmbeds",
    "Distortion",
    "IdentityReward",
    "PreferencePairs",
    "RewardHackingGuard",
    "StructureScorer",
    "Verdict",
    "WeightedRewards",
    "bradley_terry_loss",
]
