"""Temperatures, margins and thresholds for a face encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ..faces import DlibEncoder, EncoderStatistics


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
        hinge: Hinge of the identity reward: the median cosine of two photos of one person.
    """

    temperature: float
    positive_threshold: float
    negative_threshold: float
    margin: float
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
            hinge=float(statistics.genuine.quantile(0.5)),
        )


DEFAULTS = LossSettings.fitting(EncoderStatistics.of(DlibEncoder.name))
"""Settings for the default encoder."""
