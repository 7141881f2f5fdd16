"""The statistics of a face encoder, measured on the people of a set."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ..errors import StatisticsError
from ..faces import EncoderStatistics, ScoreDistribution
from .bank import IdentityBank
from .clustering import person_sums, unit
from .index import read_index
from .manifest import Manifest
from .pairs import genuine_cosines, impostor_cosines
from .quality import pose_group, size_group
from .storage import join

PAIRS = 1_000_000
MOST_PEOPLE, MOST_PHOTOS = 20_000, 16
"""Limits: of larger sets, random people and their first photos are used."""

ENOUGH_PEOPLE, ENOUGH_WITH_PAIRS = 450, 50
"""With fewer people a false-match rate of 1e-4 cannot be measured."""


def measure(
    encoder: str, embeddings: np.ndarray, labels: np.ndarray, pairs: int = PAIRS, centred: bool = False
) -> EncoderStatistics:
    """Measure an encoder on faces of known people. The result is the same each time.

    Args:
        encoder: Name of the encoder.
        embeddings: (faces, dim), raw.
        labels: (faces,), numbers of the people, from 0 without gaps.
        pairs: Number of pairs that are drawn of each kind.
        centred: Measure the cosines of embeddings relative to the centre.

    Raises:
        StatisticsError: There are fewer than 450 people, or fewer than 50 with two photos, or different people
            are as similar as photos of one person.
    """
    counts = np.bincount(labels)
    if len(counts) < ENOUGH_PEOPLE or (counts > 1).sum() < ENOUGH_WITH_PAIRS:
        raise StatisticsError(
            f"{len(counts)} people, of whom {(counts > 1).sum()} have two photos, are too few to measure '{encoder}': "
            f"at least {ENOUGH_PEOPLE} are required, {ENOUGH_WITH_PAIRS} of them with two photos."
        )
    units = unit(embeddings)
    centre = (person_sums(units, labels) / counts[:, None]).mean(0)
    compared = unit(units - centre) if centred else units
    genuine, impostor = (draw(compared, labels, pairs) for draw in (genuine_cosines, impostor_cosines))
    return EncoderStatistics(
        encoder=encoder,
        people=len(counts),
        photos=len(labels),
        centre=centre,
        length=float(np.median(np.linalg.norm(embeddings, axis=1))),
        genuine=ScoreDistribution.of(genuine, int((counts * (counts - 1) // 2).sum())),
        impostor=ScoreDistribution.of(impostor, int((counts.sum() ** 2 - (counts**2).sum()) // 2)),
    )


def measure_set(
    shards: str, split: str = "train", pairs: int = PAIRS, encoder: str | None = None, centred: bool = False
) -> EncoderStatistics:
    """Measure the encoder of a set on the named people of a split; raises like `measure`.

    Args:
        shards: Folder or URL of a prepared set.
        split: "train", "validation" or "test".
        pairs: Number of pairs that are drawn of each kind.
        encoder: Stored name of another encoder whose embeddings are cached.
        centred: Measure the cosines of embeddings relative to the centre.

    Raises:
        DataError: The set cannot be read.
    """
    found = named_faces(shards, split, encoder)
    return measure(found.encoder, found.embeddings, found.labels, pairs, centred)


class NamedFaces(NamedTuple):
    """Faces of people who are known by name.

    Attributes:
        encoder: Stored name of the encoder.
        embeddings: (faces, dim), raw.
        labels: (faces,), numbers of the people.
        groups: Group of each person; None where it is not known.
        photo_groups: What groups of photos are of → (faces,), the group of each photo.
    """

    encoder: str
    embeddings: np.ndarray
    labels: np.ndarray
    groups: list[str | None]
    photo_groups: Mapping[str, np.ndarray] = MappingProxyType({})


def named_faces(shards: str, split: str = "train", encoder: str | None = None) -> NamedFaces:
    """Some faces of the named people of a split; arguments and errors as of `measure_set`."""
    manifest = Manifest.open(shards)
    own = manifest.encoder
    bank = IdentityBank(shards, split, encoder=None if encoder == own else encoder)
    # people who were found by clustering would reproduce its threshold
    named = np.array([i for i, name in enumerate(bank.people) if not name.startswith("found-")], int)
    people = np.sort(np.random.default_rng(0).permutation(named)[:MOST_PEOPLE])
    counts = np.minimum(bank.counts[people], MOST_PHOTOS)
    faces = [np.arange(start, start + count) for start, count in zip(bank.starts[people], counts, strict=True)]
    rows = np.concatenate([np.zeros(0, int), *faces])
    labels = np.repeat(np.arange(len(people)), counts)
    groups = [bank.groups[i] for i in people]
    photo_groups = _photo_groups(shards, list(manifest.shards), bank.rows[rows])
    return NamedFaces(encoder or own, np.asarray(bank.embeddings[rows]), labels, groups, photo_groups)


def _photo_groups(shards: str, names: Sequence[str], places: np.ndarray) -> dict[str, np.ndarray]:
    """The pose and the size of faces at (faces, 2) places: shard and row in its index."""
    pose, size = np.empty(len(places), object), np.empty(len(places), object)
    for shard, name in enumerate(names):
        here = np.flatnonzero(places[:, 0] == shard)
        table = read_index(join(shards, f"{name}.parquet"), ("yaw", "size")).take(places[here, 1])
        pose[here] = [pose_group(yaw) for yaw in table["yaw"].to_pylist()]
        size[here] = [size_group(width) for width in table["size"].to_pylist()]
    return {"pose": pose, "face size": size}


def statistics_for(shards: str, encoder: str | None = None, centred: bool = False) -> EncoderStatistics:
    """The statistics of a set's encoder: measured on its training split, or the known ones if it names too few people.

    Args:
        shards: Folder or URL of a prepared set.
        encoder: Stored name of another encoder whose embeddings are cached.
        centred: Measure the cosines of embeddings relative to the centre.

    Raises:
        DataError: The set cannot be read.
        StatisticsError: The set names too few people, and there are no such statistics of the encoder.
    """
    try:
        return measure_set(shards, encoder=encoder, centred=centred)
    except StatisticsError as too_few:
        if centred:
            raise
        try:
            return EncoderStatistics.of(encoder or Manifest.open(shards).encoder)
        except StatisticsError as unknown:
            raise StatisticsError(f"{too_few} {unknown}") from unknown
