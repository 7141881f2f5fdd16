"""Similarities of the people of a set: thresholds, and the statistics of its face encoder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import NamedTuple

import numpy as np

from ..errors import DataError, StatisticsError
from ..faces import EncoderStatistics, ScoreDistribution
from .bank import IdentityBank
from .clustering import nearest_centres, person_sums, unit
from .index import read_index
from .manifest import Manifest
from .quality import pose_group, size_group
from .storage import join

PAIRS = 1_000_000
MOST_PEOPLE, MOST_PHOTOS = 20_000, 16
"""Limits: of larger sets, random people and their first photos are used."""

ENOUGH_PEOPLE, ENOUGH_WITH_PAIRS = 450, 50
"""With fewer people a false-match rate of 1e-4 cannot be measured."""

_PAIRS_ABOVE = 10  # pairs of people above a threshold that make it a measurement


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
            f"it takes {ENOUGH_PEOPLE}, and {ENOUGH_WITH_PAIRS} with two photos."
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
