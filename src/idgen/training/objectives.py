"""What a run learns from: losses, and the faces that they read."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

from ..errors import TrainingError

if TYPE_CHECKING:
    from ..losses import LossSettings
    from .methods import RewardsConfig

Config = TypeVar("Config", bound="LossConfig | RewardsConfig")


def fitted(config: Config, settings: LossSettings) -> Config:
    """The configuration with what is None taken from the settings that fit the encoder."""
    found = {name: value for name, value in asdict(settings).items() if getattr(config, name, 0) is None}
    return replace(config, **found)


@dataclass(frozen=True, kw_only=True)
class LossConfig:
    """What each loss counts; 0 leaves it out. docs/losses.md says when to use which.

    The defaults are the recommended configuration, that of docs/results.md. What is None follows from the statistics
    of the face encoder, measured on the training split where it names enough people: see `LossSettings`.

    Attributes:
        snr_gamma: Of min-SNR weighting; 0 weighs all timesteps alike.
        noise_offset: Noise that is the same all over a channel, as diffusers' scripts add it; 0 for none.
        background_weight: What a pixel beyond the face counts in the denoising loss.
        identity: Cosine of the face on the predicted picture.
        contrastive: The same against other people (InfoNCE).
        negatives: How many people of the bank each sample is compared with.
        temperature: Of the contrastive and the Mann-Whitney loss.
        whiskers: Negatives farther than so many interquartile ranges from the others do not count; 0 keeps all.
        heads: Parts of the embeddings that the contrastive loss compares one by one.
        triplet: Nearer to the person than to a picture of `prior_dir` (ID-Booth).
        margin: By how much nearer.
        prior_dir: Pictures of people that the base model has drawn.
        threshold: One threshold for all people (TCM).
        positive_threshold: Cosine from which somebody is like enough to themselves.
        negative_threshold: Cosine up to which two people may be alike.
        mann_whitney: Every positive against every negative of the batch.
        gate: Whether the losses on faces count fully ("hard") up to `t_max`, or less and less ("soft", (1 − t/T)²).
        t_max: Share of the noise schedule.
        preservation: Outside the face, draw what the base model draws.
        background: Outside the face, draw the same for other people.
        editing: On the face, an edit of the prompt changes what it changes without the identity (MasterWeaver).
        edits: What is added to the prompts for it, one at random.
        layout: Keep the queries of cross-attention (PuLID).
        semantic: Keep what the text finds in the picture (PuLID).
        localisation: The pseudo-words attend to the face (ConsistentID).
        increment: What the identity adds stays on the face (FACT).
        words: PhotoVerse's regulariser of the pseudo-words.
        values: PhotoVerse's regulariser of the identity's values.
    """

    snr_gamma: float = 5.0
    noise_offset: float = 0.0
    background_weight: float = 1.0
    identity: float = 2.0
    contrastive: float = 0.01
    negatives: int = 1024
    temperature: float | None = None
    whiskers: float = 0.0
    heads: int = 1
    triplet: float = 0.0
    margin: float | None = None
    prior_dir: str | None = None
    threshold: float = 0.0
    positive_threshold: float | None = None
    negative_threshold: float | None = None
    mann_whitney: float = 0.0
    gate: Literal["hard", "soft"] = "hard"
    t_max: float = 0.85
    preservation: float = 0.1
    background: float = 0.0
    editing: float = 0.0
    edits: tuple[str, ...] = ("smiling", "angry", "wearing glasses", "with long hair", "as an old person")
    layout: float = 0.0
    semantic: float = 0.0
    localisation: float = 0.0
    increment: float = 0.0
    words: float = 0.0
    values: float = 0.0

    def __post_init__(self) -> None:
        if self.triplet and self.prior_dir is None:
            raise TrainingError(
                "The triplet loss compares with pictures that the base model has drawn: name their folder, prior_dir."
            )
        if self.editing and not self.edits:
            raise TrainingError("The editing loss needs edits, words that are added to the prompts.")

    @classmethod
    def only(cls, **settings: Any) -> Self:
        """Denoising, and nothing but what is given."""
        return cls(**{"identity": 0.0, "contrastive": 0.0, "preservation": 0.0, **settings})

    @property
    def compares(self) -> bool:
        """Whether a loss needs to know how alike people are by the encoder."""
        return bool(self.contrastive or self.triplet or self.threshold or self.mann_whitney)
