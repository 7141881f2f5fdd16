"""Error rates of a face recogniser on pairs of one person (genuine) and of two people (impostor).

ISO/IEC 19795-1: a pair matches when its score reaches the threshold; FMR is the share of impostor pairs that match,
FNMR that of genuine pairs that do not. A face that was not found has the score -1, which is below every threshold.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

FMR_TARGET = 1e-3
CALIBRATION_RANGE = (1e-2, 1e-1)
"""Rates of false matches between whose thresholds OPIS compares people."""
THRESHOLDS = 100
MANY = 1_000_000
"""Pairs from which on scores are rounded."""


@dataclass(frozen=True)
class ErrorRates:
    """Error rates, as shares.

    Attributes:
        eer: Equal error rate: where FMR and FNMR cross, interpolated between thresholds.
        fmr: The highest FMR not above 1e-3.
        fnmr: FNMR at the threshold of `fmr`.
        threshold: The lowest score at which FMR does not exceed 1e-3.
    """

    eer: float
    fmr: float
    fnmr: float
    threshold: float


class PairScores:
    """Scores of pairs, sorted once; calling it gives the error rates for weights of the pairs.

    Of more than a million pairs, scores are rounded to 2⁻¹⁶, so that the rates of a bootstrap's draws stay quick.

    Args:
        scores: (pairs,).
        genuine: (pairs,), whether the two are the same person.
    """

    def __init__(self, scores: np.ndarray, genuine: np.ndarray) -> None:
        if len(scores) > MANY:
            scores = np.round(scores * 2**16) / 2**16
        # A threshold cannot separate equal scores: rates are read after the last pair of each score.
        found, self._place = np.unique(-scores, return_inverse=True)
        self._scores, self._genuine = -found, np.flatnonzero(genuine)

    def __call__(self, weights: np.ndarray | None = None, threshold: float | None = None) -> ErrorRates:
        """Rates with (pairs,) weights, all one if not given; NaN when there are no genuine or no impostor pairs. FMR
        and FNMR are at the threshold, if one is given."""
        weights = np.ones(len(self._place)) if weights is None else weights
        own, count = self._genuine, len(self._scores)
        genuine = np.bincount(self._place[own], weights[own], count)
        impostor = np.bincount(self._place, weights, count) - genuine
        if genuine.sum() == 0 or impostor.sum() == 0:
            return ErrorRates(*[float("nan")] * 4)
        missed = 1 - np.append(0, genuine.cumsum()) / genuine.sum()
        matched = np.append(0, impostor.cumsum()) / impostor.sum()
        thresholds = np.append(np.nextafter(self._scores[0], np.inf), self._scores)
        last = np.flatnonzero(matched <= FMR_TARGET if threshold is None else thresholds >= threshold)
        last = last[-1] if len(last) else 0
        threshold = float(thresholds[last]) if threshold is None else threshold
        return ErrorRates(_crossing(matched, missed), float(matched[last]), float(missed[last]), threshold)


def error_rates(genuine: np.ndarray, impostor: np.ndarray) -> ErrorRates:
    """Error rates of (g,) scores of pairs of one person and (i,) scores of pairs of two."""
    scores = np.concatenate([genuine, impostor])
    return PairScores(scores, np.arange(len(scores)) < len(genuine))()


def utilities(scores: Sequence[np.ndarray], genuine: Sequence[np.ndarray]) -> np.ndarray:
    """How well each of many thresholds recognises each person: the harmonic mean of the shares of genuine pairs that
    match and of impostor pairs that do not (TCM, arXiv 2307.04047, section 3).

    Args:
        scores: For each person (pairs,) cosines.
        genuine: For each person (pairs,), whether the two are the same person; both kinds exist.

    Returns:
        (people, thresholds), evenly spaced between the thresholds at which the FMR of all pairs is 1e-1 and 1e-2.
    """
    impostors = np.concatenate([each[~same] for each, same in zip(scores, genuine, strict=True)])
    low, high = np.quantile(impostors, [1 - rate for rate in reversed(CALIBRATION_RANGE)])
    rows = []
    for each, same in zip(scores, genuine, strict=True):
        matched = each[:, None] >= np.linspace(low, high, THRESHOLDS)
        found, kept = matched[same].mean(0), 1 - matched[~same].mean(0)
        rows.append(2 * found * kept / np.maximum(found + kept, np.finfo(float).tiny))
    return np.stack(rows)


def operating_point_inconsistency(utility: np.ndarray, weights: np.ndarray) -> float:
    """OPIS: the variance over people of their utility, averaged over the thresholds (TCM, arXiv 2307.04047, eq. 1):
    `1/(T (d_max − d_min)) Σᵢ ∫ (Uᵢ(d) − Ū(d))² dd`. 0 if one threshold suits everyone; NaN for one person.

    Args:
        utility: (people, thresholds), see `utilities`.
        weights: (people,), how often each person counts.
    """
    if np.count_nonzero(weights) < 2:
        return float("nan")
    share = weights / weights.sum()
    return float((share @ np.square(utility - share @ utility)).mean())


def _crossing(matched: np.ndarray, missed: np.ndarray) -> float:
    """The rate at which FMR equals FNMR, interpolated between the two nearest thresholds."""
    i = int(np.flatnonzero(matched >= missed)[0])
    if i == 0:
        return float(matched[0])
    before, after = missed[i - 1] - matched[i - 1], matched[i] - missed[i]
    share = before / (before + after)
    return float(matched[i - 1] + share * (matched[i] - matched[i - 1]))
