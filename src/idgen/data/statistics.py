"""Similarities of the people of a set: thresholds, and the statistics of its face encoder."""

from __future__ import annotations

import numpy as np

from ..errors import DataError, StatisticsError
from ..faces import EncoderStatistics, ScoreDistribution
from .bank import IdentityBank
from .clustering import nearest_centres, person_sums, unit
from .manifest import Manifest

PAIRS = 1_000_000
MOST_PEOPLE, MOST_PHOTOS = 20_000, 16
"""Of larger sets a random part is read: so many people, so many photos of each."""

ENOUGH_PEOPLE, ENOUGH_WITH_PAIRS = 450, 50
"""With fewer people a false-match rate of 1e-4 cannot be measured."""

_PAIRS_ABOVE = 10  # so many pairs of people must lie above a threshold for it to be a measurement


def measure(encoder: str, embeddings: np.ndarray, labels: np.ndarray, pairs: int = PAIRS) -> EncoderStatistics:
    """Measure an encoder on the faces of people who are known; the same faces give the same figures.

    Args:
        encoder: Its name.
        embeddings: (faces, dim), as they left the encoder.
        labels: (faces,), people's numbers from 0, none left out.
        pairs: How many pairs of each kind are drawn.

    Raises:
        StatisticsError: There are fewer than 450 people, or fewer than 50 with two photos, or strangers are as alike
            as photos of one person.
    """
    counts = np.bincount(labels)
    if len(counts) < ENOUGH_PEOPLE or (counts > 1).sum() < ENOUGH_WITH_PAIRS:
        raise StatisticsError(
            f"{len(counts)} people, of whom {(counts > 1).sum()} have two photos, are too few to measure '{encoder}': "
            f"it takes {ENOUGH_PEOPLE}, and {ENOUGH_WITH_PAIRS} with two photos."
        )
    units = unit(embeddings)
    genuine, impostor = (draw(units, labels, pairs) for draw in (genuine_cosines, impostor_cosines))
    means = person_sums(units, labels) / counts[:, None]
    return EncoderStatistics(
        encoder=encoder,
        people=len(counts),
        photos=len(labels),
        centre=means.mean(0),
        length=float(np.median(np.linalg.norm(embeddings, axis=1))),
        genuine=ScoreDistribution.of(genuine, int((counts * (counts - 1) // 2).sum())),
        impostor=ScoreDistribution.of(impostor, int((counts.sum() ** 2 - (counts**2).sum()) // 2)),
    )


def measure_set(shards: str, split: str = "train", pairs: int = PAIRS) -> EncoderStatistics:
    """Measure the encoder of a set on the named people of a split; raises as `measure`.

    Args:
        shards: Folder or URL of a prepared set.
        split: "train", "validation" or "test".
        pairs: How many pairs of each kind are drawn.

    Raises:
        DataError: The set cannot be read.
    """
    bank = IdentityBank(shards, split)
    # people whom `prepare` found by similarity would give back the threshold that they were found with
    named = np.array([i for i, name in enumerate(bank.people) if not name.startswith("found-")], int)
    people = np.sort(np.random.default_rng(0).permutation(named)[:MOST_PEOPLE])
    counts = np.minimum(bank.counts[people], MOST_PHOTOS)
    faces = [np.arange(start, start + count) for start, count in zip(bank.starts[people], counts, strict=True)]
    rows = np.concatenate([np.zeros(0, int), *faces])
    labels = np.repeat(np.arange(len(people)), counts)
    return measure(Manifest.open(shards).encoder, np.asarray(bank.embeddings[rows]), labels, pairs)


def statistics_for(shards: str) -> EncoderStatistics:
    """Those of the encoder of a set: measured on its training split, or the package's where it names too few people.

    Raises:
        DataError: The set cannot be read.
        StatisticsError: It names too few people, and the package knows nothing of the encoder.
    """
    try:
        return measure_set(shards)
    except StatisticsError as too_few:
        try:
            return EncoderStatistics.of(Manifest.open(shards).encoder)
        except StatisticsError as unknown:
            raise StatisticsError(f"{too_few} {unknown}") from unknown


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
