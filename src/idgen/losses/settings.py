"""Temperatures, margins and thresholds that fit a face encoder."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

from ..faces import DlibEncoder, EncoderStatistics


@dataclass(frozen=True, kw_only=True)
class LossSettings:
    """What the losses and rewards on faces need to know of an encoder.

    Constants that fit one encoder mean nothing for another: with dlib's, of whose strangers the mean cosine is 0.84, a
    hinge of 0.75 leaves no stranger a gradient, and a margin of 1 cannot be reached.

    Attributes:
        temperature: τ of the contrastive and the Mann-Whitney loss. A difference of cosines divided by it is a
            log-likelihood ratio of "same person" to "strangers", for normal distributions.
        positive_threshold: m⁺ of the threshold loss: the cosine that one in 10,000 pairs of strangers exceeds.
        negative_threshold: m⁻: the cosine that one in 100 pairs of strangers exceeds.
        margin: Of the triplet loss: half of what lies between one person's photos and strangers'. Most triplets of
            real photos keep it, and strangers do not.
        hinge: Of the identity reward: the median cosine of two photos of one person.
    """

    temperature: float
    positive_threshold: float
    negative_threshold: float
    margin: float
    hinge: float

    @classmethod
    def fitting(cls, statistics: EncoderStatistics) -> Self:
        """Those that follow from an encoder's statistics.

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
"""Those of the default encoder."""
