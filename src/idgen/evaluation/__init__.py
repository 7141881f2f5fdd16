"""Metrics of generated pictures, with confidence intervals; see docs/evaluation.md."""

from .error_rates import ErrorRates, error_rates, operating_point_inconsistency, utilities
from .intervals import Interval, interval, mean_interval
from .metric import Faces, Metric, Picture
from .metrics import METRICS
from .similarity import (
    assignment_accuracy,
    copy_paste,
    cosine_similarity,
    detection_rate,
    disruption,
    diversity,
    frechet_distance,
    identity_blending,
    pairwise_difference,
    sharpness,
)

__all__ = [
    "METRICS",
    "ErrorRates",
    "Faces",
    "Interval",
    "Metric",
    "Picture",
    "assignment_accuracy",
    "copy_paste",
    "cosine_similarity",
    "detection_rate",
    "disruption",
    "diversity",
    "error_rates",
    "frechet_distance",
    "identity_blending",
    "interval",
    "mean_interval",
    "operating_point_inconsistency",
    "pairwise_difference",
    "sharpness",
    "utilities",
]
