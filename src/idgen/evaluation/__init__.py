"""Pictures and photos → figures that can be trusted, with intervals (`docs/evaluation.md`)."""

from .bootstrap import Interval, interval, mean_interval
from .frechet import frechet_distance
from .separability import Separability, separability
from .similarity import (
    copy_paste,
    cosine_similarity,
    detection_rate,
    disruption,
    diversity,
    identity_blending,
    pairwise_difference,
)

__all__ = [
    "Interval",
    "Separability",
    "copy_paste",
    "cosine_similarity",
    "detection_rate",
    "disruption",
    "diversity",
    "frechet_distance",
    "identity_blending",
    "interval",
    "mean_interval",
    "pairwise_difference",
    "separability",
]
