"""The table of rewards, one row each, and their settings.

The command line, the configuration, the model card, the logs and docs/losses.md read the table. A new reward is a file
and a row.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from ..errors import LossError
from ..inputs import EncoderSpec, InputPlace
from ..losses.row import Row, Table
from ..losses.settings import Over, WeightedConfig
from ..losses.weights import WEIGHTS_FLAG, Weights

REWARDS = Table(
    "reward",
    {
        "identity": Row(
            make="idgen.rewards.identity_reward:IdentityReward",
            weight=5.0,
            help="cosine similarity of the generated face to the references",
            formula="mean or highest cos to the references; min(cos, m) with a hinge",
            source="ID-Aligner (2404.15449, eq. 3), ReFL (2304.05977)",
            cost="face",
            use="always; the hinge guards against copying",
        ),
        "blending": Row(
            make="idgen.rewards.blending:BlendingReward",
            help="people in one picture do not resemble each other's photos",
            formula="−mean over the picture's other people j of cos(face of i, target of j)",
            source="identity blending of WithAnyone (2510.14975, eq. 10)",
            cost="face, and one more pass of the encoder",
            use="with identity, for pictures of several people (`--group photo`); 0 for a single person",
        ),
        "aesthetic": Row(
            make="idgen.rewards.aesthetic:AestheticReward.open",
            needs=("aesthetic_head",),
            help="score of an aesthetic predictor on CLIP's features",
            formula="a head over image features, LAION's as it is published once converted to safetensors",
            source="stands for ID-Aligner's `R_appeal`",
            cost="one CLIP image encoder",
            use="weight 0.001 with 0.2 for identity in ID-Aligner; without it faces lose contrast and light",
        ),
        "structure": Row(
            make="idgen.rewards.structure:StructureScorer.open",
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
        encoder: Face encoders of the identity reward, whose embeddings the shards hold: it is the mean over them.
            Defaults to the encoder that the adapter reads. Keep one for evaluation.
        over: Compare pictures with the references too, by the mean or the highest similarity; by default with the
            target alone.
        over_people: Reward of a picture of several people: the mean over them, or the least. A person without a face
            counts as 0.
        hinge: Similarity beyond which the identity reward does not increase; by default the median similarity of two
            photos of one person by the face encoder. 1 is no hinge.
        aesthetic_head: Safetensors file of the aesthetic predictor.
        aesthetic_clip: CLIP model that the predictor was made for: a folder or a hub id.
        structure_scorer: Safetensors file of a `StructureScorer`.
    """

    table: ClassVar[Table] = REWARDS
    weights: Annotated[Weights, WEIGHTS_FLAG, REWARDS.flag()] = field(default_factory=dict)
    encoder: tuple[EncoderSpec, ...] = ()
    over: Over | None = None
    over_people: Literal["mean", "least"] = "mean"
    hinge: float | None = None
    aesthetic_head: InputPlace | None = None
    aesthetic_clip: str = "openai/clip-vit-large-patch14"
    structure_scorer: InputPlace | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if windows := [name for name, weight in self.active.items() if weight.window is not None]:
            raise LossError(f"Rewards are for finished pictures, which have no timestep: give {windows[0]}=WEIGHT.")


def rewards_table() -> str:
    """The table in the documentation."""
    return REWARDS.markdown()
