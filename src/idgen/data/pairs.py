"""Random pairs of photos of one person and of different people, and their cosines."""

from __future__ import annotations

import numpy as np


def impostor_cosines(units: np.ndarray, labels: np.ndarray, pairs: int) -> np.ndarray:
    """Cosines of random pairs of different named people; slightly fewer than `pairs`."""
    return cosines_of(units, *impostor_pairs(labels, pairs))


def genuine_cosines(units: np.ndarray, labels: np.ndarray, pairs: int) -> np.ndarray:
    """Cosines of random pairs of two photos of a person; the weight of a person is limited to that of 20 photos."""
    return cosines_of(units, *genuine_pairs(labels, pairs))


def impostor_pairs(labels: np.ndarray, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Faces of different named people; slightly fewer pairs than asked for, always the same ones."""
    named = np.flatnonzero(labels >= 0)
    if not len(named):
        return named, named
    a, b = np.random.default_rng(0).choice(named, (2, pairs))
    different = labels[a] != labels[b]
    return a[different], b[different]


def genuine_pairs(labels: np.ndarray, pairs: int) -> tuple[np.ndarray, np.ndarray]:
    """Two faces of a person each, always the same ones; the weight of a person is limited to that of 20 photos."""
    order = np.argsort(labels, kind="stable")
    order = order[labels[order] >= 0]
    starts = np.flatnonzero(np.diff(labels[order], prepend=-1))
    counts = np.diff(starts, append=len(order))
    starts, counts = starts[counts > 1], counts[counts > 1]
    if not len(starts):
        return starts, starts
    random = np.random.default_rng(0)
    weights = np.minimum(counts, 20)
    chosen = random.choice(len(starts), pairs, p=weights / weights.sum())
    first = random.integers(counts[chosen])
    second = (first + random.integers(1, counts[chosen])) % counts[chosen]
    return order[starts[chosen] + first], order[starts[chosen] + second]


def cosines_of(units: np.ndarray, a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Cosines of pairs of rows."""
    found = np.empty(len(a), np.float32)
    for rows in np.array_split(np.arange(len(a)), len(a) // 65_536 + 1):
        found[rows] = np.einsum("nd,nd->n", units[a[rows]], units[b[rows]])
    return found
