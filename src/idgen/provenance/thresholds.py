"""The threshold of a blocklist, from the similarities of different people."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..errors import ProvenanceError
from ..evaluation.intervals import Interval, interval

ENOUGH_MATCHES = 30
"""With 30 errors, a rate is known to within 30 % (Doddington et al. 2000, "the rule of 30")."""


@dataclass(frozen=True)
class MeasuredThreshold:
    """A threshold and its false-match rate.

    Attributes:
        threshold: Cosine.
        false_match_rate: Share of pairs of different people that reach it, with a 95 % interval over people.
        pairs: Number of pairs.
    """

    threshold: float
    false_match_rate: Interval
    pairs: int


def find_threshold(similarities: np.ndarray, false_match_rate: float = 1e-4) -> MeasuredThreshold:
    """The lowest threshold with at most this false-match rate.

    Args:
        similarities: (people, people), cosines of one embedding per person.
        false_match_rate: Largest share of pairs of different people that may reach the threshold.

    Raises:
        ProvenanceError: There are too few people: fewer than 30 pairs would match.
    """
    first, second = np.triu_indices(len(similarities), k=1)
    scores = similarities[first, second]
    allowed = int(false_match_rate * len(scores))
    if allowed < ENOUGH_MATCHES:
        raise ProvenanceError(
            f"{len(scores):,} pairs of different people are too few for a false-match rate of {false_match_rate:g}: "
            f"at least {ENOUGH_MATCHES} of them must match."
        )
    highest_refused = np.partition(scores, -allowed - 1)[-allowed - 1]
    threshold = float(np.nextafter(highest_refused, np.float32(2)))
    return MeasuredThreshold(threshold, match_rate(similarities, threshold), len(scores))


def match_rate(similarities: np.ndarray, threshold: float) -> Interval:
    """Share of the pairs that reach a threshold. The interval is bootstrapped over people, since pairs share them.

    Args:
        similarities: See `find_threshold`.
        threshold: Cosine.
    """
    first, second = np.nonzero(np.triu(similarities >= threshold, k=1))

    def rate(weights: np.ndarray) -> float:
        pairs = (weights.sum() ** 2 - (weights**2).sum()) / 2
        return float(weights[first] @ weights[second] / pairs) if pairs else float("nan")

    return interval(rate, len(similarities))
