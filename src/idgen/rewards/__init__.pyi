from .aesthetic import AestheticHead, AestheticReward, ClipImageEmbeds
from .blending import BlendingReward
from .distortion import Distortion, PreferencePairs
from .guard import RewardHackingGuard, Verdict
from .identity_reward import IdentityReward
from .structure import StructureScorer, bradley_terry_loss
from .table import REWARDS, RewardsConfig
from .weighted import WeightedRewards, make_rewards

__all__ = [
    "REWARDS",
    "AestheticHead",
    "AestheticReward",
    "BlendingReward",
    "ClipImageEmbeds",
    "Distortion",
    "IdentityReward",
    "PreferencePairs",
    "RewardHackingGuard",
    "RewardsConfig",
    "StructureScorer",
    "Verdict",
    "WeightedRewards",
    "bradley_terry_loss",
    "make_rewards",
]
