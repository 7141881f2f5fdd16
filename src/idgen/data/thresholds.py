"""What a cosine of two embeddings means: measured on the people of a set, where it names enough of them."""

from __future__ import annotations

import numpy as np

from ..errors import DataError, StatisticsError
from ..faces import EncoderStatistics
from .people import nearest_centres, person_sums, unit

_PAIRS_ABOVE = 10  # so many pairs of people must lie above a threshold for it to be a measurement


def same_person_threshold(
    units: np.ndarray, labels: np.ndarray, encoder: str, false_match_rate: float = 1e-4, pairs: int = 1_000_000
) -> float:
    """The cosine that pairs of different people exceed at a rate, measured on the set if it names enough people.

    Args:
        units: (n, dim).
        labels: (n,), numbers; negative where nobody is named.
        encoder: For sets with few labels.
        false_match_rate: Share of pairs of different people above the threshold.
        pairs: How many are drawn, always the same ones.

    Raises:
        DataError: There are few labels, and the encoder is not known.
    """
    if _enough(labels, false_match_rate):
        return float(np.quantile(impostor_cosines(units, labels, pairs), 1 - false_match_rate))
    try:
        return EncoderStatistics.of(encoder).threshold(false_match_rate)
    except StatisticsError as error:
        raise DataError(
            f"No threshold is known for '{encoder}', and the set names too few people to measure one. Pass "
            "--threshold: the cosine above which two faces are the same person."
        ) from error


def centre_threshold(units: np.ndarray, labels: np.ndarray, false_match_rate: float = 1e-2) -> float | None:
    """The cosine that photos exceed at a rate against the centre of somebody else; None with few people.

    A photo that is not nearer than that to its own person's centre is as likely somebody else.
    """
    if not _enough(labels, false_match_rate):
        return None
    named = np.flatnonzero(labels >= 0)
    centres = unit(person_sums(units, labels))
    random = np.random.default_rng(0)
    rows, others = random.choice(named, 200_000), labels[random.choice(named, 200_000)]
    different = labels[rows] != others
    cosines = np.einsum("nd,nd->n", units[rows[different]], centres[others[different]])
    return float(np.quantile(cosines, 1 - false_match_rate))


def stranger_threshold(
    units: np.ndarray, labels: np.ndarray, false_match_rate: float = 1e-2, faces: int = 2000
) -> float | None:
    """The cosine at which a stranger's face is taken for anybody of the set at a rate; None with few people.

    Of five thousand people one is always alike: the cosine to the *nearest* centre of somebody else lies far above
    the one to any other person.
    """
    if not _enough(labels, false_match_rate):
        return None
    named = np.flatnonzero(labels >= 0)
    rows = np.random.default_rng(0).choice(named, min(faces, len(named)), replace=False)
    cosines, _ = nearest_centres(units[rows], unit(person_sums(units, labels)), but=labels[rows])
    return float(np.quantile(cosines, 1 - false_match_rate))


def _enough(labels: np.ndarray, rate: float) -> bool:
    people = len(np.unique(labels[labels >= 0]))
    return people * (people - 1) / 2 * rate >= _PAIRS_ABOVE


def impostor_cosines(units: np.ndarray, labels: np.ndarray, pairs: int) -> np.ndarray:
    """Cosines of about so many random pairs of different named people."""
    named = np.flatnonzero(labels >= 0)
    if not len(named):
        return np.zeros(0, np.float32)
    a, b = np.random.default_rng(0).choice(named, (2, pairs))
    different = labels[a] != labels[b]
    return _cosines(units, a[different], b[different])


def genuine_cosines(units: np.ndarray, labels: np.ndarray, pairs: int) -> np.ndarray:
    """Cosines of so many random pairs of two photos of a person; nobody counts for more than 20 photos."""
    order = np.argsort(labels, kind="stable")
    order = order[labels[order] >= 0]
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    counts = np.diff(starts, append=len(order))
    starts, counts = starts[counts > 1], counts[counts > 1]
    if not len(starts):
        return np.zeros(0, np.float32)
    random = np.random.default_rng(0)
    weights = np.minimum(counts, 20)
    chosen = random.choice(len(starts), pairs, p=weights / weights.sum())
    first = random.integers(counts[chosen])
    second = (first + random.integers(1, counts[chosen])) % counts[chosen]
    return _cosines(units, order[starts[chosen] + first], order[starts[chosen] + second])


def _cosines(units: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    found = np.empty(len(a), np.float32)
    for rows in np.array_split(np.arange(len(a)), len(a) // 65_536 + 1):
        found[rows] = np.einsum("nd,nd->n", units[a[rows]], units[b[rows]])
    return found
