"""Whether several photos are of one person."""

from __future__ import annotations

import warnings

import torch
import torch.nn.functional as F

from .faces.statistics import EncoderStatistics

OUTLIER_RATIO = 1.4
"""A photo is an outlier if its distance from the mean of the others exceeds the median distance this many times,"""

OUTLIER_DISTANCE = 0.3
"""and exceeds this distance between unit vectors, since ratios of very small distances mean nothing."""


def warn_of_outliers(encoder: str, embeddings: torch.Tensor) -> None:
    """Warn of photos, (photos, dim) embeddings, that look like another person than the others."""
    directions = F.normalize(embeddings, dim=-1)
    count = len(directions)
    if count == 2:  # of two photos that differ, neither is known to be the wrong one
        _warn_of_strangers(encoder, float(directions[0] @ directions[1]))
    if count < 3:
        return
    others = (directions.sum(0) - directions) / (count - 1)
    distance = (directions - others).norm(dim=-1)
    for i in range(count):
        usual = distance[torch.arange(count) != i].median()
        if distance[i] > max(OUTLIER_RATIO * usual, OUTLIER_DISTANCE):
            warnings.warn(
                f"Photo {i + 1} of {count} looks like another person than the others; give it a lower weight or leave "
                "it out.",
                stacklevel=3,
            )


def _warn_of_strangers(encoder: str, cosine: float) -> None:
    """Warn if the cosine of two photos is low, for encoders with known statistics."""
    statistics = EncoderStatistics.find(encoder)
    if statistics is None:
        return
    _, least = statistics.equal_error
    if cosine < least:
        warnings.warn(
            f"The two photos look like two people: their cosine by '{encoder}' is {cosine:.3f}, and photos of one "
            f"person rarely have less than {least:.3f}. Use photos of one person.",
            stacklevel=4,
        )
