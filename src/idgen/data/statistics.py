"""The statistics of a face encoder, measured on the people of a prepared set."""

from __future__ import annotations

import numpy as np

from ..errors import StatisticsError
from ..faces import EncoderStatistics, ScoreDistribution
from .bank import IdentityBank
from .manifest import Manifest
from .people import person_sums, unit
from .thresholds import genuine_cosines, impostor_cosines

PAIRS = 1_000_000
MOST_PEOPLE, MOST_PHOTOS = 20_000, 16
"""Of larger sets a random part is read: so many people, so many photos of each."""

ENOUGH_PEOPLE, ENOUGH_WITH_PAIRS = 450, 50
"""With fewer people a false-match rate of 1e-4 cannot be measured."""


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
