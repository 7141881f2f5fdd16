"""Who is who: clean the labels of a set, find people where there are no labels, and part people into splits.

Everything here works on embeddings of unit length, so one product is a cosine. Thresholds are cosines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

import numpy as np

from ..errors import DataError, MissingDependencyError

SAME_PERSON = {"dlib-resnet-v1": 0.951, "insightface/buffalo_l": 0.28, "insightface/antelopev2": 0.28}
"""Cosine that one in a thousand pairs of different people exceeds, for sets without labels to calibrate on: dlib's on
the LFW people that models may be trained with, insightface's as its authors' verification figures have it."""

SAME_PHOTO = 0.997
"""Two pictures of a person above this cosine are one photo: copies, recompressed or resized. Different photos of a
person do not come so near, with any encoder."""

_FEW_PEOPLE = 50  # labels of fewer cannot calibrate a threshold
_BLOCK = 1 << 18  # rows that are worked on at a time, where more would not fit into memory


def unit(embeddings: np.ndarray) -> np.ndarray:
    """(n, dim) → the same of length one, float32."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return (embeddings / np.maximum(lengths, 1e-12)).astype(np.float32)


def same_person_threshold(
    units: np.ndarray, labels: np.ndarray, encoder: str, false_match_rate: float = 1e-3, pairs: int = 200_000
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
    named = np.flatnonzero(labels >= 0)
    if len(np.unique(labels[named])) < _FEW_PEOPLE:
        if encoder not in SAME_PERSON:
            raise DataError(
                f"There is no calibrated threshold for '{encoder}', and fewer than {_FEW_PEOPLE} people have names "
                "here to calibrate one on. Give --threshold: the cosine that different people do not exceed."
            )
        return SAME_PERSON[encoder]
    return float(np.quantile(impostor_cosines(units, labels, pairs), 1 - false_match_rate))


def impostor_cosines(units: np.ndarray, labels: np.ndarray, pairs: int) -> np.ndarray:
    """Cosines of about so many random pairs of different named people."""
    random = np.random.default_rng(0)
    named = np.flatnonzero(labels >= 0)
    a, b = random.choice(named, (2, pairs))
    different = labels[a] != labels[b]
    return _cosines(units, a[different], b[different])


def genuine_cosines(units: np.ndarray, labels: np.ndarray, pairs: int) -> np.ndarray:
    """Cosines of up to so many random pairs of two photos of a person."""
    order = np.argsort(labels, kind="stable")
    order = order[labels[order] >= 0]
    starts, counts = _runs(labels[order])
    starts, counts = starts[counts > 1], counts[counts > 1]
    if not len(starts):
        return np.zeros(0, np.float32)
    random = np.random.default_rng(0)
    chosen = random.choice(len(starts), pairs, p=counts / counts.sum())
    first = random.integers(counts[chosen])
    second = (first + random.integers(1, counts[chosen])) % counts[chosen]
    return _cosines(units, order[starts[chosen] + first], order[starts[chosen] + second])


def centre_cosines(units: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Each photo against the centre of its person's other photos, (n,); 1 where a person has no other, NaN unnamed."""
    cosines = np.full(len(units), np.nan)
    named = np.flatnonzero(labels >= 0)
    people = int(labels.max(initial=-1)) + 1
    sums = person_sums(units, labels, people)
    counts = np.bincount(labels[named], minlength=people)
    for rows in np.array_split(named, len(named) // _BLOCK + 1):
        others = sums[labels[rows]] - units[rows]
        lengths = np.linalg.norm(others, axis=1)
        near = np.einsum("nd,nd->n", others, units[rows]) / np.maximum(lengths, 1e-12)
        cosines[rows] = np.where(counts[labels[rows]] == 1, 1.0, near)
    return cosines


def person_sums(units: np.ndarray, labels: np.ndarray, people: int) -> np.ndarray:
    """(people, dim), float64: the sum of each person's rows."""
    sums = np.zeros((people, units.shape[1]))
    named = np.flatnonzero(labels >= 0)
    for rows in np.array_split(named, len(named) // _BLOCK + 1):
        np.add.at(sums, labels[rows], units[rows])
    return sums


def centre_threshold(units: np.ndarray, labels: np.ndarray, false_match_rate: float = 1e-2) -> float | None:
    """The cosine that photos exceed at a rate against the centre of somebody else; None with few people.

    A photo that is not nearer than that to its own person's centre is as likely somebody else.
    """
    named = np.flatnonzero(labels >= 0)
    people = int(labels.max(initial=-1)) + 1
    if len(np.unique(labels[named])) < _FEW_PEOPLE:
        return None
    centres = unit(person_sums(units, labels, people))
    random = np.random.default_rng(0)
    rows, others = random.choice(named, 200_000), random.choice(labels[named], 200_000)
    different = labels[rows] != others
    cosines = np.einsum("nd,nd->n", units[rows[different]], centres[others[different]])
    return float(np.quantile(cosines, 1 - false_match_rate))


def find_people(units: np.ndarray, threshold: float) -> np.ndarray:
    """Group faces of unknown people: (n,) numbers of the groups, from 0 in the order of their first face.

    Faces nearer than the threshold are linked; each connected group is then parted by average linkage, because chains
    of look-alikes would join half of a large set into one person.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    try:
        from scipy.sparse.csgraph import connected_components
        from sklearn.cluster import AgglomerativeClustering
        from sklearn.neighbors import radius_neighbors_graph
    except ImportError as error:
        raise MissingDependencyError("Finding people needs scikit-learn: pip install idgen[data]") from error

    if not len(units):
        return np.zeros(0, np.int64)
    # between unit vectors |a − b|² = 2 − 2 cos
    links = radius_neighbors_graph(units, float(np.sqrt(2 - 2 * threshold)), include_self=True)
    _, parts = connected_components(links, directed=False)
    groups = np.empty(len(units), np.int64)
    first = 0
    for rows in np.split(np.argsort(parts, kind="stable"), np.cumsum(np.bincount(parts))[:-1]):
        linkage = AgglomerativeClustering(
            n_clusters=None,  # pyright: ignore[reportArgumentType]
            metric="cosine",
            linkage="average",
            distance_threshold=1 - threshold,
        )
        found = linkage.fit_predict(units[rows]) if len(rows) > 1 else np.zeros(1, np.int64)
        groups[rows] = found + first
        first += int(found.max()) + 1
    _, places, numbers = np.unique(groups, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(places))[numbers]


def near_duplicates(units: np.ndarray, labels: np.ndarray, threshold: float = SAME_PHOTO) -> np.ndarray:
    """(n,), whether an earlier photo of the same person is the same photo."""
    found = np.zeros(len(units), bool)
    order = np.argsort(labels, kind="stable")
    starts, counts = _runs(labels[order])
    for start, count in zip(starts, counts, strict=True):
        rows = order[start : start + count]
        if count > 1 and labels[rows[0]] >= 0:
            nearest = np.tril(units[rows] @ units[rows].T, -1).max(1)
            found[rows] = nearest >= threshold
    return found


def split_of(person: str, shares: Mapping[str, float], seed: int = 0) -> str:
    """The split of a person: by a hash of the name, so it stays the same when other people come or go.

    Args:
        person: Name.
        shares: Of each split but "train", which gets the rest.
        seed: For another parting.
    """
    number = int.from_bytes(hashlib.sha256(f"{seed}:{person}".encode()).digest()[:8], "big") / 2**64
    for split, share in shares.items():
        if number < share:
            return split
        number -= share
    return "train"


def _cosines(units: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.einsum("nd,nd->n", units[a], units[b])


def _runs(ordered: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Start and length of each run of equal values."""
    starts = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]]) if len(ordered) else np.zeros(0, np.int64)
    return starts, np.diff(np.r_[starts, len(ordered)])
