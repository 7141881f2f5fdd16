"""From how alike strangers are to a blocklist's threshold."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import ProvenanceError
from ..evaluation.bootstrap import Interval, interval

ENOUGH_MATCHES = 30
"""A rate is known to within 30 % once it has shown 30 times (Doddington et al. 2000, "the rule of 30")."""


@dataclass(frozen=True)
class Calibration:
    """A threshold, and how often strangers reach it.

    Attributes:
        threshold: Cosine.
        false_match_rate: Share of the pairs of strangers that reach it, with the 95 % interval over people.
        pairs: How many pairs there were.
    """

    threshold: float
    false_match_rate: Interval
    pairs: int


def calibrate(similarities: np.ndarray, false_match_rate: float = 1e-4) -> Calibration:
    """The lowest threshold that no more than a share of strangers reach.

    Args:
        similarities: (people, people), cosines of one embedding of everybody with everybody's.
        false_match_rate: That share.

    Raises:
        ProvenanceError: Too few people: under 30 pairs would match.
    """
    first, second = np.triu_indices(len(similarities), k=1)
    scores = similarities[first, second]
    allowed = int(false_match_rate * len(scores))
    if allowed < ENOUGH_MATCHES:
        raise ProvenanceError(
            f"{len(scores):,} pairs of strangers are too few for a false-match rate of {false_match_rate:g}: at least "
            f"{ENOUGH_MATCHES} of them should match."
        )
    highest_refused = np.partition(scores, -allowed - 1)[-allowed - 1]
    threshold = float(np.nextafter(highest_refused, np.float32(2)))
    return Calibration(threshold, match_rate(similarities, threshold), len(scores))


def match_rate(similarities: np.ndarray, threshold: float) -> Interval:
    """Share of the pairs that reach a threshold; the interval draws people, since pairs share them.

    Args:
        similarities: As for `calibrate`.
        threshold: Cosine.
    """
    first, second = np.nonzero(np.triu(similarities >= threshold, k=1))

    def rate(weights: np.ndarray) -> float:
        pairs = (weights.sum() ** 2 - (weights**2).sum()) / 2
        return float(weights[first] @ weights[second] / pairs) if pairs else float("nan")

    return interval(rate, len(similarities))
