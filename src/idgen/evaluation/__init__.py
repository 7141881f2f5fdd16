"""Metrics of generated pictures, with confidence intervals; see docs/evaluation.md."""

from .bootstrap import Interval, interval, mean_interval
from .metric import Faces, Metric, Picture
from .metrics import METRICS
from .separability import Separability, operating_point_inconsistency, separability, utilities
from .similarity import (
    copy_paste,
    cosine_similarity,
    detection_rate,
    disruption,
    diversity,
    frechet_distance,
    identity_blending,
    pairwise_difference,
)

__all__ = [
    "METRICS",
    "Faces",
    "Interval",
    "Metric",
    "Picture",
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
    "operating_point_inconsistency",
    "pairwise_difference",
    "separability",
    "utilities",
]
