"""The table of rewards, one row each, and their settings.

The command line, the configuration, the model card, the logs and docs/losses.md read the table. A new reward is a file
and a row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import torch

from ..errors import LossError
from ..losses import FaceEmbedder, Row, Table, WeightedTerms
from ..losses.settings import WeightedConfig
from ..losses.weights import WEIGHTS_FLAG, Weights
from .aesthetic import AestheticReward
from .identity_reward import IdentityReward
from .structure import StructureScorer

REWARDS = Table(
    "reward",
    {
        "identity": Row(
            make=IdentityReward,
            weight=5.0,
            help="cosine similarity of the generated face to the references",
            formula="mean cos to the references; min(cos, m) with a hinge",
            source="ID-Aligner (2404.15449, eq. 3), ReFL (2304.05977)",
            cost="face",
            use="always; the hinge guards against copying",
        ),
        "aesthetic": Row(
            make=AestheticReward.open,
            needs=("aesthetic_head",),
            help="score of an aesthetic predictor on CLIP's features",
            formula="a head over image features, LAION's as it is published once converted to safetensors",
            source="stands for ID-Aligner's `R_appeal`",
            cost="one CLIP image encoder",
            use="weight 0.001 with 0.2 for identity in ID-Aligner; without it faces lose contrast and light",
        ),
        "structure": Row(
            make=StructureScorer.open,
            needs=("structure_scorer",),
            help="score of a StructureScorer",
            formula="trained by `bradley_terry_loss` on the pairs of `Distortion`",
            source="ID-Aligner's `R_struct`; pictures are twisted directly, not by pose and ControlNet",
            cost="a small convolutional network",
            use="when features of the face or the body are bent",
        ),
    },
)


@dataclass(frozen=True, kw_only=True)
class RewardsConfig(WeightedConfig):
    """Weights and settings of the rewards.

    Attributes:
        weights: Weights of rewards, NAME=WEIGHT, in place of their defaults; 0 turns a reward off. A reward of your
            own is FILE.py:FUNCTION=WEIGHT; docs/rewards.md says what it may read.
        hinge: Similarity beyond which the identity reward does not increase; by default the median similarity of two
            photos of one person by the face encoder. 1 is no hinge.
        aesthetic_head: Safetensors file of the aesthetic predictor.
        aesthetic_clip: CLIP model that the predictor was made for: a folder or a hub id.
        structure_scorer: Safetensors file of a `StructureScorer`.
    """

    table: ClassVar[Table] = REWARDS
    weights: Annotated[Weights, WEIGHTS_FLAG, REWARDS.flag()] = field(default_factory=dict)
    hinge: float | None = None
    aesthetic_head: str | None = None
    aesthetic_clip: str = "openai/clip-vit-large-patch14"
    structure_scorer: str | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if windows := [name for name, weight in self.active.items() if weight.window is not None]:
            raise LossError(f"Rewards are for finished pictures, which have no timestep: give {windows[0]}=WEIGHT.")


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


def rewards_table() -> str:
    """The table in the documentation."""
    return REWARDS.markdown()


def make_rewards(config: RewardsConfig, embedder: FaceEmbedder, device: torch.device) -> WeightedRewards:
    """The rewards of a configuration.

    Args:
        config: Weights and settings; the hinge is that of the default face encoder if it is None.
        embedder: Face encoder of the identity reward.
        device: Device of the networks.

    Raises:
        CheckpointError: A network cannot be opened.
        LossError: No reward has a weight, or a function of one's own is not found.
    """
    return WeightedRewards(
        REWARDS.terms(config.weights, {**config.fitted().settings, "embedder": embedder, "device": device})
    )
