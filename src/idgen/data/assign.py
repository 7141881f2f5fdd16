"""The step over the whole set: person, split and what is set aside, for every face of every shard."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from .index import read_index, write_index
from .people import (
    centre_cosines,
    centre_threshold,
    find_people,
    genuine_cosines,
    impostor_cosines,
    near_duplicates,
    same_person_threshold,
    split_of,
    unit,
)
from .storage import join

_READ = ("key", "face", "label", "sha256", "size", "dropped", "embedding")


@dataclass(frozen=True, kw_only=True)
class AssignOptions:
    """How people are told apart and parted.

    Attributes:
        threshold: Cosine above which two faces are one person; measured on the set, or the encoder's own, if None.
        shares: Share of the people in each split; "train" gets the rest.
        test_people: Names that are in "test" whatever their share.
        seed: Of the splits.
    """

    threshold: float | None = None
    shares: Mapping[str, float]
    test_people: frozenset[str] = frozenset()
    seed: int = 0


@dataclass(frozen=True)
class Assigned:
    """What was measured on the way.

    Attributes:
        threshold: Cosine above which two faces are one person.
        centre_threshold: Cosine to the person's centre under which a labelled photo is set aside; None if there are
            too few labels to know.
        genuine: Cosines of pairs of one person, a sample.
        impostor: Of different people.
    """

    threshold: float | None
    centre_threshold: float | None
    genuine: np.ndarray
    impostor: np.ndarray


def assign_people(output: str, names: Sequence[str], encoder: str, options: AssignOptions) -> Assigned:
    """Fill the last columns of all indexes; doing it again gives the same.

    Args:
        output: Folder or URL of the set.
        names: Its shards.
        encoder: That made the embeddings.
        options: See there.

    Raises:
        DataError: No threshold is known; see `same_person_threshold`.
    """
    tables = [read_index(join(output, f"{name}.parquet"), _READ) for name in names]
    table = pa.concat_tables(tables)
    kept = np.flatnonzero(table["dropped"].is_null().to_numpy())
    faces = _Faces.of(table.take(kept))
    assigned = faces.assign(encoder, options)
    columns = {name: np.full(len(table), None, object) for name in ("person", "split", "aside", "centre")}
    for name, values in faces.columns(options).items():
        columns[name][kept] = values
    start = 0
    for name, part in zip(names, tables, strict=True):
        _fill(join(output, f"{name}.parquet"), {k: v[start : start + len(part)] for k, v in columns.items()})
        start += len(part)
    return assigned


def _fill(url: str, columns: Mapping[str, np.ndarray]) -> None:
    table = read_index(url)
    filled = table
    for name, values in columns.items():
        position = table.schema.get_field_index(name)
        filled = filled.set_column(position, table.schema.field(name), pa.array(values, table.schema.field(name).type))
    if not filled.equals(table):
        write_index(url, filled)


@dataclass(eq=False)
class _Faces:
    """All faces of the set that were not dropped, in order."""

    keys: np.ndarray
    faces: np.ndarray  # their number in the photo, the largest first
    hashes: np.ndarray
    sizes: np.ndarray
    units: np.ndarray
    labels: np.ndarray  # of the photo: numbers into `names`, -1 where there is none
    names: list[str]

    @classmethod
    def of(cls, table: pa.Table) -> _Faces:
        labels = table["label"].combine_chunks().dictionary_encode()
        embeddings = table["embedding"].combine_chunks()
        return cls(
            keys=table["key"].to_numpy(),
            faces=table["face"].to_numpy(),
            hashes=table["sha256"].to_numpy(),
            sizes=table["size"].to_numpy(),
            units=unit(embeddings.flatten().to_numpy().reshape(len(table), -1)) if len(table) else np.zeros((0, 1)),
            labels=np.asarray(labels.indices.fill_null(-1)).astype(np.int64),
            names=labels.dictionary.to_pylist(),
        )

    def assign(self, encoder: str, options: AssignOptions) -> Assigned:
        self.aside = np.full(len(self.keys), None, object)
        self.people = self._labelled_face()
        copies = self._copies()
        self.aside[copies] = "duplicate"
        clean = np.where(copies, -1, self.people)
        self.centre = centre_cosines(self.units, clean)
        limit = centre_threshold(self.units, clean)
        if limit is not None:
            far = (self.centre < limit) & (clean >= 0)
            self.aside[far] = "far-from-person"
            clean = np.where(far, -1, clean)
        unknown = (self.people < 0) & ~copies
        threshold = options.threshold
        if unknown.any() or threshold is None:
            threshold = threshold or _threshold_if_known(self.units, clean, encoder, needed=bool(unknown.any()))
        if unknown.any():
            assert threshold is not None
            self._find(unknown, clean, threshold)
        usable = self.aside == None  # noqa: E711  (an array of objects)
        clean = np.where(usable, self.people, -1)
        self.aside[near_duplicates(self.units, clean)] = "near-duplicate"
        clean = np.where(self.aside == None, self.people, -1)  # noqa: E711
        self.centre = np.where(clean >= 0, centre_cosines(self.units, clean), self.centre)
        enough = (clean >= 0).any()
        return Assigned(
            threshold,
            limit,
            genuine_cosines(self.units, clean, 50_000),
            impostor_cosines(self.units, clean, 50_000) if enough else np.zeros(0, np.float32),
        )

    def columns(self, options: AssignOptions) -> dict[str, list[object]]:
        shares = options.shares
        splits = [
            "test" if name in options.test_people else split_of(name, shares, options.seed) for name in self.names
        ]
        return {
            "person": [self.names[i] if i >= 0 else None for i in self.people],
            "split": [splits[i] if i >= 0 else None for i in self.people],
            "aside": list(self.aside),
            "centre": [None if np.isnan(value) else float(value) for value in self.centre],
        }

    def _labelled_face(self) -> np.ndarray:
        """A photo's label belongs to one of its faces: the nearest to the person's photos with one face, or where
        there is no such photo, the largest. The others have no name."""
        _, photo, count = np.unique(self.keys, return_inverse=True, return_counts=True)
        alone = count[photo] == 1
        sums = np.zeros((len(self.names), self.units.shape[1]))
        single = alone & (self.labels >= 0)
        np.add.at(sums, self.labels[single], self.units[single])
        people = np.where(alone, self.labels, -1)
        for rows in np.split(np.argsort(photo, kind="stable"), np.cumsum(count)[:-1]) if len(count) else ():
            label = self.labels[rows[0]]
            if len(rows) > 1 and label >= 0:
                known = sums[label].any()
                people[rows[np.argmax(self.units[rows] @ sums[label] if known else self.sizes[rows])]] = label
        return people

    def _copies(self) -> np.ndarray:
        """(n,), whether the same file was there before."""
        _, first = np.unique(self.hashes, return_index=True)
        keys = set(self.keys[first])
        return np.array([key not in keys for key in self.keys], bool)

    def _find(self, unknown: np.ndarray, clean: np.ndarray, threshold: float) -> None:
        """Name the faces nobody has named: after the labelled person they resemble, or else after their group."""
        rows = np.flatnonzero(unknown)
        if (clean >= 0).any():
            sums = np.zeros((len(self.names), self.units.shape[1]))
            np.add.at(sums, clean[clean >= 0], self.units[clean >= 0])
            centres = unit(sums)
            for part in np.array_split(rows, max(len(rows) // 1024, 1)):
                cosines = self.units[part] @ centres.T
                known = cosines.max(1) >= threshold
                self.people[part[known]] = cosines.argmax(1)[known]
            rows = rows[self.people[rows] < 0]
        groups = find_people(self.units[rows], threshold)
        for group in np.unique(groups):
            members = rows[groups == group]
            # named after one face in it, so that the name stays when the set grows
            sha256, face = min((self.hashes[i], self.faces[i]) for i in members)
            self.people[members] = len(self.names)
            self.names.append(f"found-{sha256[:12]}.{face}")


def _threshold_if_known(units: np.ndarray, labels: np.ndarray, encoder: str, needed: bool) -> float | None:
    from ..errors import DataError

    try:
        return same_person_threshold(units, labels, encoder)
    except DataError:
        if needed:
            raise
        return None
