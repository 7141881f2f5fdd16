"""Settings of losses and rewards: those that depend on the face encoder, and the base of the configurations."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any, ClassVar, Literal, Self, TypeAlias

from ..faces import EncoderStatistics
from .row import Table
from .weights import Weight, Weights

Part: TypeAlias = Literal["heads", "gates", "temperature"]
"""What the contrastive loss can learn; see `LearnedSimilarity`."""


Over: TypeAlias = Literal["mean", "max"]
"""How the similarities to several photos of a person become one."""


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """Settings of losses and rewards that depend on the face encoder.

    Constants for one encoder do not apply to another. With dlib's encoder, the mean cosine of different people is
    0.84: a hinge of 0.75 removes the gradient for all of them, and a margin of 1 cannot be reached.

    Attributes:
        temperature: τ of the contrastive and the Mann-Whitney loss. A difference of cosines divided by τ is the
            log-likelihood ratio of "same person" to "different people", for normal distributions.
        positive_threshold: m⁺ of the threshold loss: the cosine that one in 10,000 pairs of different people exceeds.
        negative_threshold: m⁻ of the threshold loss: the cosine that one in 100 pairs of different people exceeds.
        margin: m of the triplet loss: half the difference between the mean cosines of the same person and of different
            people. Most triplets of real photos satisfy it.
        match_threshold: θ of the error rate loss: the cosine that one in 1,000 pairs of different people exceeds.
        robustness: λ of the robust loss: the difference between the mean cosines of the same person and of different
            people, so that all of them count.
        hinge: Hinge of the identity reward: the median cosine of two photos of one person.
    """

    temperature: float
    positive_threshold: float
    negative_threshold: float
    margin: float
    match_threshold: float
    robustness: float
    hinge: float

    @classmethod
    def fitting(cls, statistics: EncoderStatistics) -> Self:
        """Settings from an encoder's statistics.

        Raises:
            StatisticsError: Too few people were measured.
        """
        return cls(
            temperature=statistics.temperature,
            positive_threshold=statistics.threshold(1e-4),
            negative_threshold=statistics.threshold(1e-2),
            margin=statistics.gap / 2,
            match_threshold=statistics.threshold(1e-3),
            robustness=statistics.gap,
            hinge=float(statistics.genuine.quantile(0.5)),
        )


DEFAULTS = LossSettings.fitting(EncoderStatistics.packaged("dlib-resnet-v1"))
"""Settings for the default encoder."""


@dataclass(frozen=True, kw_only=True)
class WeightedConfig:
    """The base of the configurations of losses and rewards: weights by name, and settings.

    Raises:
        LossError: A name is not known, a weight is malformed, or a needed setting is missing.
    """

    table: ClassVar[Table]
    weights: Weights = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.table.check(self.weights, self)

    @classmethod
    def only(cls, **given: Any) -> Self:
        """What is given and nothing else: weights and settings by name. Denoising has its default weight."""
        named = cls.nest(given)
        off = {name: 0.0 for name, row in cls.table.rows.items() if row.weight and name != "denoising"}
        return cls(**{**named, "weights": off | named["weights"]})

    @classmethod
    def nest(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Weights and settings side by side, as in a TOML table → the arguments of this class."""
        names = {each.name for each in fields(cls)} - {"weights"}
        weights = {name: value for name, value in values.items() if name not in names}
        return {"weights": weights, **{name: value for name, value in values.items() if name in names}}

    @property
    def settings(self) -> dict[str, Any]:
        """The settings by name."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "weights"}

    @property
    def active(self) -> dict[str, Weight]:
        """Weights that are not 0."""
        return {name: weight for name, weight in self.table.weights(self.weights).items() if weight.value}

    @property
    def read_settings(self) -> set[str]:
        """Names of the settings that the active losses or rewards are made with."""
        rows = (self.table.rows[name] for name in self.active if name in self.table.rows)
        return {name for row in rows for name in row.reads_settings} & self.settings.keys()

    @property
    def needs_statistics(self) -> bool:
        """Whether a setting in use follows from the statistics of the face encoder."""
        return any(getattr(self, name) is None for name in self.read_settings & asdict(DEFAULTS).keys())

    def fitted(self, constants: LossSettings = DEFAULTS) -> Self:
        """The same with all weights, and with the encoder's constants for settings that are None."""
        found = {name: value for name, value in asdict(constants).items() if getattr(self, name, 0) is None}
        return replace(self, weights=self.table.weights(self.weights), **found)
