"""Thresholds of similarity that a set of named people gives, and how reliable its names are."""

from __future__ import annotations

import numpy as np

from ..errors import DataError, StatisticsError
from ..faces import EncoderStatistics
from .clustering import nearest_centres, person_sums, unit
from .pairs import impostor_cosines

_PAIRS_ABOVE = 10  # pairs of people above a threshold that make it a measurement


def same_person_threshold(
    units: np.ndarray, labels: np.ndarray, encoder: str, false_match_rate: float = 1e-4, pairs: int = 1_000_000
) -> float:
    """The cosine with this false-match rate: measured on the set if it names enough people, else the encoder's.

    Args:
        units: (n, dim).
        labels: (n,), numbers of people; negative for unnamed faces.
        encoder: Name of the encoder, for sets with few labels.
        false_match_rate: Share of pairs of different people above the threshold.
        pairs: Number of pairs that are drawn, always the same ones.

    Raises:
        DataError: There are few labels, and no statistics of the encoder.
    """
    if _enough(labels, false_match_rate):
        return float(np.quantile(impostor_cosines(units, labels, pairs), 1 - false_match_rate))
    try:
        return EncoderStatistics.of(encoder).threshold(false_match_rate)
    except StatisticsError as error:
        raise DataError(
            f"No threshold is known for '{encoder}', and the set names too few people to measure one. Pass "
            "--threshold: the cosine above which two faces are the same person; `idgen calibrate` measures it."
        ) from error


def centre_threshold(units: np.ndarray, labels: np.ndarray, false_match_rate: float = 1e-2) -> float | None:
    """The cosine of photos to the centre of another person with this false-match rate; None with few people.

    A photo with a lower cosine to its own person's centre may well show another person.
    """
    if not _enough(labels, false_match_rate):
        return None
    return float(np.quantile(_stranger_centre_cosines(units, labels), 1 - false_match_rate))


def centre_reliability(units: np.ndarray, labels: np.ndarray, cosines: np.ndarray) -> np.ndarray:
    """How reliable the names of photos are: `(c − away) / (usual − away)`, limited to 0 … 1.

    c is the cosine of a photo to the centre of its person's other photos, `usual` the median of c, and `away` the mean
    cosine of photos to the centre of another person. A photo is 0 where it is no more like its person than a stranger,
    and 1 where it is as like as usual. It is 1 also where a person has one photo, which nothing speaks against.

    Args:
        units: (n, dim).
        labels: (n,), numbers of people; negative for faces that are not considered.
        cosines: (n,), see `centre_cosines`.

    Returns:
        (n,); NaN for faces that are not considered, and everywhere with too few people to measure `away`.
    """
    found = np.full(len(units), np.nan)
    several = (labels >= 0) & (cosines < 1)
    if not _enough(labels, 1e-2) or not several.any():
        return found
    usual, away = float(np.median(cosines[several])), float(_stranger_centre_cosines(units, labels).mean())
    if usual > away:
        found[labels >= 0] = np.clip((cosines[labels >= 0] - away) / (usual - away), 0, 1)
    return found


def _stranger_centre_cosines(units: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cosines of random photos to the centres of random other people; fewer than 200,000."""
    named = np.flatnonzero(labels >= 0)
    centres = unit(person_sums(units, labels))
    random = np.random.default_rng(0)
    rows, others = random.choice(named, 200_000), labels[random.choice(named, 200_000)]
    different = labels[rows] != others
    return np.einsum("nd,nd->n", units[rows[different]], centres[others[different]])


def stranger_threshold(
    units: np.ndarray, labels: np.ndarray, false_match_rate: float = 1e-2, faces: int = 2000
) -> float | None:
    """The cosine of faces to the *nearest* centre of another person with this false-match rate; None with few people.

    Among thousands of people, one is always similar, so this is far above the cosine to an arbitrary other person.
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
