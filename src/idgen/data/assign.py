"""The step over the whole set: assigns a person and a split to each face, and sets faces aside."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from .budget import Budget, choose
from .clustering import centre_cosines, find_people, nearest_centres, person_sums, split_of, unit
from .columns import open_photo
from .duplicates import same_files, same_pictures
from .index import SCHEMA, read_index, write_index
from .pairs import genuine_cosines, impostor_cosines
from .storage import join
from .thresholds import centre_reliability, centre_threshold, same_person_threshold, stranger_threshold

_READ = ("key", "face", "label", "reference", "sha256", "size", "dropped", "crop_offset", "crop_length")
_ASIDE = ("duplicate", "near-duplicate", "far-from-person", "no-reference", "over-budget")
_DUPLICATE, _NEAR_DUPLICATE, _FAR, _NO_REFERENCE, _OVER_BUDGET = range(5)


@dataclass(frozen=True, kw_only=True)
class AssignOptions:
    """Settings for assigning faces to people, and people to splits.

    Attributes:
        threshold: Cosine above which two faces are the same person. None: measured on the set, or the encoder's.
        shares: Share of the people per split; "train" gets the rest.
        test_people: Names of people who are always in "test".
        seed: Seed of the splits.
        budget: How many faces are kept, and which; None to keep all.
    """

    threshold: float | None = None
    shares: Mapping[str, float]
    test_people: frozenset[str] = frozenset()
    seed: int = 0
    budget: Budget | None = None


@dataclass(frozen=True)
class Assigned:
    """Measurements of the step.

    Attributes:
        thresholds: Cosines that were used. "same_person": two unnamed faces above it are the same person; "named": an
            unnamed face with a higher cosine to a named person's centre is that person; "centre": a named photo with a
            lower cosine to the centre of its person's other photos is set aside (None with too few people).
        genuine: Cosines of a sample of pairs of one person.
        impostor: Cosines of a sample of pairs of different people.
    """

    thresholds: dict[str, float | None]
    genuine: np.ndarray
    impostor: np.ndarray


def assign_people(output: str, names: Sequence[str], encoder: str, options: AssignOptions) -> Assigned:
    """Fill the last columns of all indexes. The result is the same each time.

    Args:
        output: Folder or URL of the set.
        names: Names of its shards.
        encoder: Name of the encoder of the embeddings.
        options: How faces are assigned.

    Raises:
        DataError: No threshold is known, see `same_person_threshold`, or the set of the budget cannot be read.
    """
    urls = [join(output, f"{name}.parquet") for name in names]
    tables = [read_index(url, _READ) for url in urls]
    table = pa.concat_tables(tables)
    kept = np.flatnonzero(table["dropped"].is_null().to_numpy())
    shards = np.repeat(np.arange(len(tables)), [len(part) for part in tables])[kept]
    faces = _Faces.of(table.take(kept), urls, [join(output, f"{names[i]}.tar") for i in shards])
    assigned = faces.assign(encoder, options)
    places = np.full(len(table), -1)
    places[kept] = np.arange(len(kept))
    start = 0
    for url, part in zip(urls, tables, strict=True):
        _fill(url, faces.columns(places[start : start + len(part)], options))
        start += len(part)
    return assigned


def _fill(url: str, columns: Mapping[str, pa.Array]) -> None:
    table = read_index(url)
    filled = table
    for name, values in columns.items():
        place = table.schema.get_field_index(name)
        if place < 0:  # a shard of an earlier version
            filled = filled.append_column(SCHEMA.field(name), values)
        else:
            filled = filled.set_column(place, table.schema.field(name), values)
    if not filled.equals(table):
        write_index(url, filled)


@dataclass(eq=False)
class _Faces:
    """All faces of the set that were not dropped, in order."""

    photos: np.ndarray  # number of the photo
    faces: np.ndarray  # number in the photo, the largest first
    files: np.ndarray  # number of the file's content, an index into `hashes`
    hashes: pa.Array
    sizes: np.ndarray
    units: np.ndarray
    thumbnails: np.ndarray
    labels: np.ndarray  # labels of the photos: indices into `names`, -1 without a label
    references: np.ndarray  # whether the photo is a reference; what is none says nothing of how its person looks
    names: list[str]
    crop: Callable[[int], np.ndarray]

    @classmethod
    def of(cls, table: pa.Table, urls: Sequence[str], tars: Sequence[str]) -> _Faces:
        labels, files, keys = (table[name].combine_chunks().dictionary_encode() for name in ("label", "sha256", "key"))
        units, thumbnails = _read_vectors(urls, len(table))
        return cls(
            photos=keys.indices.to_numpy(),
            faces=table["face"].to_numpy(),
            files=files.indices.to_numpy(),
            hashes=files.dictionary,
            sizes=table["size"].to_numpy(),
            units=units,
            thumbnails=thumbnails,
            labels=np.asarray(labels.indices.fill_null(-1)).astype(np.int64),
            names=labels.dictionary.to_pylist(),
            references=np.asarray(table["reference"].combine_chunks()).astype(bool),
            crop=_crops(tars, table.select(["key", "crop_offset", "crop_length"])),
        )

    def assign(self, encoder: str, options: AssignOptions) -> Assigned:
        self.aside = np.full(len(self.photos), -1, np.int8)
        self.people = self._labelled_face()
        self.aside[same_files(self.files, self.photos, self.units, self.people)] = _DUPLICATE
        self.centre = centre_cosines(self.units, self._clean())
        thresholds: dict[str, float | None] = {"centre": centre_threshold(self.units, self._clean())}
        if thresholds["centre"] is not None:
            self.aside[(self.centre < thresholds["centre"]) & (self._clean() >= 0)] = _FAR
        unknown = np.flatnonzero((self.people < 0) & (self.aside < 0) & self.references)
        if len(unknown):
            thresholds |= self._name(unknown, encoder, options.threshold)
        self.aside[same_pictures(self.thumbnails, self._clean(), self.sizes, self.crop)] = _NEAR_DUPLICATE
        clean = self._clean()
        if options.budget is not None:
            target = options.budget.target(encoder)
            self.aside[(clean >= 0) & ~choose(self.units, clean, options.budget, target)] = _OVER_BUDGET
            clean = self._clean()
        self.centre = np.where(clean >= 0, centre_cosines(self.units, clean), self.centre)
        self.reliability = centre_reliability(self.units, clean, self.centre)
        lost = (self.aside < 0) & ~self.references & ~np.isin(self.people, clean[clean >= 0])
        self.aside[lost] = _NO_REFERENCE
        pairs = 50_000
        return Assigned(
            thresholds, genuine_cosines(self.units, clean, pairs), impostor_cosines(self.units, clean, pairs)
        )

    def columns(self, places: np.ndarray, options: AssignOptions) -> dict[str, pa.Array]:
        """The columns of the faces at these positions; null where a position is negative."""
        rows = places[places >= 0]
        used, numbers = np.unique(self.people[rows], return_inverse=True)
        names = [self.names[i] if i >= 0 else None for i in used]
        splits = [None if name is None else self._split(name, options) for name in names]
        aside = [*_ASIDE, None]
        index = np.full(len(places), -1)
        index[places >= 0] = np.arange(len(rows))
        take = pa.array(index, mask=index < 0)
        return {
            "person": pa.array(names, pa.string()).take(pa.array(numbers)).take(take),
            "split": pa.array(splits, pa.string()).take(pa.array(numbers)).take(take),
            "aside": pa.array(aside, pa.string()).take(pa.array(self.aside[rows] % len(aside))).take(take),
            "centre": _numbers(self.centre[rows]).take(take),
            "reliability": _numbers(self.reliability[rows]).take(take),
        }

    @staticmethod
    def _split(name: str, options: AssignOptions) -> str:
        return "test" if name in options.test_people else split_of(name, options.shares, options.seed)

    def _clean(self) -> np.ndarray:
        """(n,), the person of each face that is a reference and not set aside, -1 for all others."""
        return np.where((self.aside < 0) & self.references, self.people, -1)

    def _labelled_face(self) -> np.ndarray:
        """The face that a photo's label belongs to: the one that is most similar to the person's photos with a single
        face, or the largest one if there is no such photo. The other faces have no name."""
        count = np.bincount(self.photos, minlength=1)
        people = np.where(count[self.photos] == 1, self.labels, -1)
        rows = np.flatnonzero((count[self.photos] > 1) & (self.labels >= 0))
        if not len(rows):
            return people
        sums = person_sums(self.units, np.where(self.references, people, -1), len(self.names))
        labels = self.labels[rows]
        likeness = np.einsum("nd,nd->n", self.units[rows], unit(sums)[labels])
        score = np.where(np.any(sums, axis=1)[labels], likeness, self.sizes[rows])
        order = np.lexsort((-score, self.photos[rows]))
        _, first = np.unique(self.photos[rows][order], return_index=True)
        best = order[first]
        people[rows[best]] = labels[best]
        return people

    def _name(self, rows: np.ndarray, encoder: str, given: float | None) -> dict[str, float | None]:
        """Name unnamed faces: after the named person whom they resemble, or otherwise after their cluster."""
        clean = self._clean()
        same = same_person_threshold(self.units, clean, encoder) if given is None else given
        thresholds: dict[str, float | None] = {"same_person": same}
        if (clean >= 0).any():
            measured = stranger_threshold(self.units, clean) if given is None else given
            named = same if measured is None else measured
            thresholds["named"] = named
            cosines, people = nearest_centres(self.units[rows], unit(person_sums(self.units, clean)))
            self.people[rows] = np.where(cosines >= named, people, -1)
            rows = rows[cosines < named]
        self._name_groups(rows, find_people(self.units[rows], same))
        return thresholds

    def _name_groups(self, rows: np.ndarray, groups: np.ndarray) -> None:
        """Name each cluster after one face in it, so that most names stay when the set grows."""
        rank = np.argsort(np.asarray(pc.array_sort_indices(self.hashes)))  # pyright: ignore[reportAttributeAccessIssue]
        order = np.lexsort((self.faces[rows], rank[self.files[rows]], groups))
        _, first = np.unique(groups[order], return_index=True)
        self.people[rows] = groups + len(self.names)
        self.names += [
            f"found-{self.hashes[int(self.files[row])].as_py()[:12]}.{self.faces[row]}" for row in rows[order[first]]
        ]


def _numbers(values: np.ndarray) -> pa.Array:
    """NaN becomes null."""
    return pa.array(values, pa.float64(), mask=np.isnan(values))


def _crops(tars: Sequence[str], places: pa.Table) -> Callable[[int], np.ndarray]:
    """A function that reads the aligned crop of a row, (112, 112, 3) uint8; few of them are read."""

    @lru_cache(64)
    def crop(row: int) -> np.ndarray:
        key, offset, length = (column[row].as_py() for column in places.columns)
        return open_photo(tars[row], {"key": key, "offset": offset, "length": length})

    return crop


def _read_vectors(urls: Sequence[str], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Unit embeddings and thumbnails of all faces that were not dropped: most of the memory of this step."""
    found: tuple[np.ndarray, np.ndarray] | None = None
    start = 0
    for url in urls:
        table = read_index(url, ("dropped", "embedding", "thumbnail"))
        table = table.filter(table["dropped"].is_null())
        parts = [
            table[name].combine_chunks().flatten().to_numpy().reshape(len(table), -1)
            for name in ("embedding", "thumbnail")
            if len(table)
        ]
        if parts:
            if found is None:
                found = (
                    np.empty((count, parts[0].shape[1]), np.float32),
                    np.empty((count, parts[1].shape[1]), np.uint8),
                )
            found[0][start : start + len(table)] = unit(parts[0])
            found[1][start : start + len(table)] = parts[1]
            start += len(table)
    return found or (np.zeros((0, 1), np.float32), np.zeros((0, 1), np.uint8))
