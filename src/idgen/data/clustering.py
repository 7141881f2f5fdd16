"""Centres of people, clustering of unnamed faces into people, and splits of people.

All embeddings have unit length, so dot products are cosines.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping

import numpy as np

from ..errors import MissingDependencyError

_BLOCK = 1 << 18  # rows per block, where all of them would not fit into memory
_CELLS = 1 << 26  # entries of a matrix of cosines
_LINKED = 10_000  # average linkage needs the matrix of all distances: 0.8 GB for this many faces


def unit(embeddings: np.ndarray) -> np.ndarray:
    """Scale embeddings, (n, dim), to unit length, float32."""
    lengths = np.linalg.norm(embeddings, axis=1, keepdims=True)
    return (embeddings / np.maximum(lengths, 1e-12)).astype(np.float32)


def person_sums(units: np.ndarray, labels: np.ndarray, people: int | None = None) -> np.ndarray:
    """(people, dim), float64: the sum of each person's rows."""
    sums = np.zeros((int(labels.max(initial=-1)) + 1 if people is None else people, units.shape[1]))
    named = np.flatnonzero(labels >= 0)
    for rows in np.array_split(named, len(named) // _BLOCK + 1):
        np.add.at(sums, labels[rows], units[rows])
    return sums


def centre_cosines(units: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cosine of each photo to the centre of its person's other photos, (n,); 1 without others, NaN if unnamed."""
    cosines = np.full(len(units), np.nan)
    named = np.flatnonzero(labels >= 0)
    sums = person_sums(units, labels)
    counts = np.bincount(labels[named], minlength=len(sums))
    for rows in np.array_split(named, len(named) // _BLOCK + 1):
        others = sums[labels[rows]] - units[rows]
        lengths = np.linalg.norm(others, axis=1)
        near = np.einsum("nd,nd->n", others, units[rows]) / np.maximum(lengths, 1e-12)
        cosines[rows] = np.where(counts[labels[rows]] == 1, 1.0, near)
    return cosines


def nearest_centres(
    units: np.ndarray, centres: np.ndarray, but: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """The most similar person to each face.

    Args:
        units: (n, dim).
        centres: (people, dim), unit length.
        but: (n,), the person who is left out for each face.

    Returns:
        Cosines, (n,), and numbers of the people, (n,).
    """
    cosines, people = np.empty(len(units), np.float32), np.empty(len(units), np.int64)
    block = max(_CELLS // max(len(centres), 1), 1)
    for start in range(0, len(units), block):
        part = slice(start, start + block)
        table = units[part] @ centres.T
        if but is not None:
            table[np.arange(len(table)), but[part]] = -1
        people[part] = table.argmax(1)
        cosines[part] = table.max(1)
    return cosines, people


def find_people(units: np.ndarray, threshold: float) -> np.ndarray:
    """Cluster faces of unknown people: (n,) numbers of the clusters, from 0 in the order of their first face.

    Faces with a cosine above the threshold are linked. Each connected component is then clustered by average linkage,
    because chains of similar faces would join half of a large set into one person.

    Raises:
        MissingDependencyError: scikit-learn is not installed.
    """
    try:
        from sklearn.cluster import AgglomerativeClustering
    except ImportError as error:
        raise MissingDependencyError(
            "Finding people needs scikit-learn: pip install 'idgen-diffusers[data]'"
        ) from error

    groups = np.empty(len(units), np.int64)
    first = 0
    for rows in _linked_parts(units, np.arange(len(units)), threshold) if len(units) else ():
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


def _linked_parts(units: np.ndarray, rows: np.ndarray, threshold: float) -> Iterator[np.ndarray]:
    """Connected components. One with too many faces for a matrix is linked again with a higher threshold."""
    from scipy.sparse.csgraph import connected_components
    from sklearn.neighbors import radius_neighbors_graph

    # between unit vectors |a − b|² = 2 − 2 cos
    links = radius_neighbors_graph(units[rows], float(np.sqrt(2 - 2 * threshold)), include_self=True)
    _, numbers = connected_components(links, directed=False)
    del links
    for part in np.split(np.argsort(numbers, kind="stable"), np.cumsum(np.bincount(numbers))[:-1]):
        if len(part) > _LINKED and threshold < 1 - 1e-6:
            yield from _linked_parts(units, rows[part], threshold + (1 - threshold) / 4)
        else:
            yield rows[part]


def split_of(person: str, shares: Mapping[str, float], seed: int = 0) -> str:
    """The split of a person, by a hash of the name, so that it does not depend on the other people.

    Args:
        person: Name.
        shares: Share of each split except "train", which gets the rest.
        seed: Seed of the hash.
    """
    number = int.from_bytes(hashlib.sha256(f"{seed}:{person}".encode()).digest()[:8], "big") / 2**64
    for split, share in shares.items():
        if number < share:
            return split
        number -= share
    return "train"
