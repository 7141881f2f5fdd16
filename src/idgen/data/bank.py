"""`IdentityBank`: the embeddings of all people in a set, sorted by person, on disk."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ..errors import DataError
from .clustering import unit
from .columns import Column
from .index import read_index, usable_rows
from .makers import embeds_column
from .manifest import Manifest
from .storage import delete, exists, find, join, local_copy, locked, open_file, write_file

FOLDER, EMBEDDINGS = "bank", "embeddings.npy"
REFERENCES = "references"
_BLOCK = 1 << 16  # embeddings that are read at once
_COLUMNS = ("person", "group", "split", "dropped", "aside", "reference", "embedding")


def write_bank(output: str, names: Sequence[str], dim: int) -> None:
    """Sort the usable faces of a set by split and person, the references of each person first.

    Writes `embeddings.npy`, (faces, dim) float32, `rows.npy`, (faces, 2), the shard's number and the row in its
    index, and `people.parquet` with name, split, where a person's faces begin, how many there are, how many of them
    are references, and the group, the first that one of these faces has.

    Args:
        output: Folder or URL of the set.
        names: Names of its shards.
        dim: Length of an embedding.
    """
    keys: list[pa.Table] = []
    for i, name in enumerate(names):
        table = read_index(join(output, f"{name}.parquet"), _COLUMNS[:-1])
        said = table["reference"].fill_null(True)
        table = table.set_column(table.schema.get_field_index("reference"), "reference", said)
        row = pa.array(range(len(table)), pa.int64())
        table = table.append_column("shard", pa.array([i] * len(table), pa.int64())).append_column("row", row)
        keys.append(table.filter(pa.array(usable_rows(table))).drop_columns(["dropped", "aside"]))
    directions = {"reference": "descending"}
    columns = ("split", "person", "reference", "shard", "row")
    order = pa.concat_tables(keys).sort_by([(key, directions.get(key, "ascending")) for key in columns])
    rows = np.stack([order["shard"].to_numpy(), order["row"].to_numpy()], 1)
    codes = order["person"].combine_chunks().dictionary_encode().indices.to_numpy()
    starts = np.flatnonzero(np.diff(codes, prepend=-1))  # a person is in one split only
    counts = np.diff(starts, append=len(codes))
    told = order["group"].to_pylist()
    groups = [next(filter(None, told[i : i + n]), None) for i, n in zip(starts.tolist(), counts.tolist(), strict=True)]
    people = order.select(["person", "split"]).take(starts).append_column("group", pa.array(groups, pa.string()))
    people = people.append_column("start", pa.array(starts)).append_column("count", pa.array(counts))
    people = people.append_column(REFERENCES, pa.array(np.add.reduceat(order["reference"].to_numpy() * 1, starts)))
    for url in find(join(output, FOLDER)):  # embeddings of other encoders, which may be of other photos now
        if url.rsplit("/", 1)[-1].startswith("embeds-"):
            delete(url)
    with write_file(join(output, f"{FOLDER}/{EMBEDDINGS}")) as path:
        _write_sorted(path, output, names, rows, dim, partial(_of_index, output))
    with write_file(join(output, f"{FOLDER}/rows.npy")) as path, path.open("wb") as file:
        np.save(file, rows, allow_pickle=False)
    with write_file(join(output, f"{FOLDER}/people.parquet")) as path:
        pq.write_table(people, path)


def count_groups(output: str) -> dict[str, dict[str, int]]:
    """Split → group → people of the bank that `write_bank` wrote; people without a group are under ""."""
    with open_file(join(output, f"{FOLDER}/people.parquet")) as file:
        people = pq.read_table(file, columns=["split", "group"]).to_pydict()
    found: dict[str, dict[str, int]] = {}
    groups = [group or "" for group in people["group"]]
    for (split, group), count in sorted(Counter(zip(people["split"], groups, strict=True)).items()):
        found.setdefault(split, {})[group] = count
    return found


def write_embeddings(shards: str, encoder: str) -> None:
    """Write the embeddings of another encoder into the bank, from their columns.

    Args:
        shards: Folder or URL of a prepared set.
        encoder: Stored name of the encoder.

    Raises:
        DataError: The set is not finished, or a column is missing or damaged.
    """
    names = list(Manifest.open(shards).shards)
    rows = _load_array(shards, "rows.npy")
    first = Column(shards, names[int(rows[0, 0])], embeds_column(encoder), encoder)[int(rows[0, 1])]
    if first is None:
        raise DataError(
            f"The embeddings of '{encoder}' in '{shards}' are older than the set. {_how_to_write(encoder)}"
        )
    with locked(shards), write_file(join(shards, f"{FOLDER}/{embeds_column(encoder)}.npy")) as path:
        _write_sorted(path, shards, names, rows, len(first), partial(_of_column, shards, encoder))


def _of_index(output: str, name: str, rows: np.ndarray) -> np.ndarray:
    """The embeddings of some rows of a shard, flat."""
    column = read_index(join(output, f"{name}.parquet"), ["embedding"])["embedding"]
    return column.take(rows).combine_chunks().flatten().to_numpy()


def _of_column(shards: str, encoder: str, name: str, rows: np.ndarray) -> np.ndarray:
    column = Column(shards, name, embeds_column(encoder), encoder)
    values = [value for row in rows.tolist() if (value := column[row]) is not None]
    return torch.cat(values).float().numpy() if values else np.zeros(0, np.float32)


def _write_sorted(
    path: Path,
    output: str,
    names: Sequence[str],
    rows: np.ndarray,
    dim: int,
    read: Callable[[str, np.ndarray], np.ndarray],
) -> None:
    """Write shard by shard, each face to its position: all of them would not fit into memory, and a memory-mapped file
    kills the process if the disk is full."""
    order = np.argsort(rows[:, 0], kind="stable")
    bounds = np.searchsorted(rows[order, 0], np.arange(len(names) + 1))
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (len(rows), dim)}
        np.lib.format.write_array_header_1_0(file, header)
        first = file.tell()
        for i, name in enumerate(names):
            places = order[bounds[i] : bounds[i + 1]]
            if not len(places):
                continue
            values = read(name, rows[places, 1])
            if len(values) != len(places) * dim:
                raise DataError(f"Embeddings in the shard '{name}' of '{output}' do not have {dim} numbers each.")
            values = values.reshape(-1, dim)
            check_finite(f"{output}, shard {name}", values)
            for place, value in zip(places.tolist(), values, strict=True):
                file.seek(first + 4 * dim * place)
                file.write(value.tobytes())


class IdentityBank:
    """The memory-mapped embeddings of all people in a split, from which negatives are drawn.

    Args:
        shards: Folder or URL of a prepared set; from a URL the bank is copied to a temporary folder.
        split: "train", "validation" or "test".
        count: Number of negatives per draw.
        hard: Draw eight times as many and keep the most similar ones for each person, (batch, count) instead of
            (count,).
        too_similar: People whose centre has a higher cosine to that of the person are left out too: they are most
            likely the same person under two names.
        seed: Seed of the draws.
        encoder: Stored name of another encoder than the set's, whose embeddings `idgen prepare --cache embeddings`
            wrote.

    Raises:
        DataError: There is no bank, the split has no people, or the bank is damaged: its files do not fit together, or
            an embedding is not finite. All embeddings of the split are read once to check this.

    Attributes:
        people: Names; the number of a person is the index in this list.
        groups: Group of each person; None where the data has none.
        starts: (people,), the first face of each.
        counts: (people,), number of faces.
        references: (people,), how many of them, the first ones, may be references; in a set of an earlier version all.
        embeddings: (faces, dim), float32, raw, memory-mapped.
        rows: (faces, 2), the shard's number and the row in its index.
    """

    def __init__(
        self,
        shards: str,
        split: str = "train",
        *,
        count: int = 1024,
        hard: bool = False,
        too_similar: float | None = None,
        seed: int = 0,
        encoder: str | None = None,
        _reopened: bool = False,
    ) -> None:
        self._arguments = {
            "shards": shards,
            "split": split,
            "count": count,
            "hard": hard,
            "too_similar": too_similar,
            "seed": seed,
            "encoder": encoder,
        }
        file = EMBEDDINGS if encoder is None else f"{embeds_column(encoder)}.npy"
        if encoder is not None and not exists(join(shards, f"{FOLDER}/{file}")):
            raise DataError(f"'{shards}' has no embeddings of '{encoder}'. {_how_to_write(encoder)}")
        try:
            folder = local_copy(join(shards, FOLDER))
            people = pq.read_table(folder / "people.parquet", filters=[("split", "=", split)])
            embeddings = np.load(folder / file, mmap_mode="r", allow_pickle=False)
            rows = np.load(folder / "rows.npy", mmap_mode="r", allow_pickle=False)
        except Exception as error:  # a header of numpy is Python's syntax, and can be wrong in many ways
            raise DataError(f"'{shards}' has no bank of people: {error}. Run `idgen prepare` to its end.") from error
        if not len(people):
            raise DataError(f"There are no people in the split '{split}' of '{shards}'.")
        part = _check_bank(shards, people, embeddings, rows)
        self.people: list[str] = people["person"].to_pylist()
        known = "group" in people.column_names and people["group"].type == pa.string()
        self.groups: list[str | None] = people["group"].to_pylist() if known else [None] * len(people)
        self.counts = people["count"].to_numpy()
        self.references = people[REFERENCES if REFERENCES in people.column_names else "count"].to_numpy()
        self.starts = people["start"].to_numpy() - part.start
        self.embeddings, self.rows = embeddings[part], rows[part]
        if not _reopened:
            check_finite(shards, self.embeddings)
        self.count, self.hard, self.too_similar, self.seed = count, hard, too_similar, seed

    def __len__(self) -> int:
        return len(self.people)

    def __reduce__(self) -> Any:
        """Another process opens the files again instead of receiving their content."""
        return partial(type(self), **self._arguments, _reopened=True), ()

    def person_of(self, faces: np.ndarray) -> np.ndarray:
        """Numbers of the people that faces (numbers of rows) belong to."""
        return np.searchsorted(self.starts, faces, side="right") - 1

    def centre(self, person: int) -> np.ndarray:
        """(dim,), of unit length, from at most 16 of the person's references."""
        start = self.starts[person]
        return unit(unit(self.embeddings[start : start + min(self.references[person], 16)]).sum(0, keepdims=True))[0]

    @cached_property
    def centres(self) -> np.ndarray:
        """(people, dim), float32: the mean direction of each person's references, of unit length. All embeddings of
        the split are read."""
        sums = np.zeros((len(self), self.embeddings.shape[1]))
        for faces in np.array_split(np.arange(len(self.embeddings)), len(self.embeddings) // _BLOCK + 1):
            persons = self.person_of(faces)
            use = faces - self.starts[persons] < self.references[persons]
            np.add.at(sums, persons[use], unit(self.embeddings[faces[use]]))
        return unit(sums)

    def draw(self, persons: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw one reference each of other people; the same number gives the same draw.

        Args:
            persons: (batch,), numbers of the people who must not be drawn.
            number: Number of the draw.

        Returns:
            Embeddings, (count, dim), and the people's numbers, (count,); with `hard` or `too_similar` one list
            per person, (batch, count, dim) and (batch, count). A small set gives fewer than `count`. People who are
            too similar get the number of the person they are drawn for, which losses leave out.
        """
        random = np.random.default_rng((self.seed, number))
        asked = persons.cpu().numpy()
        others = np.setdiff1d(_few_of(random, len(self), self.count * (8 if self.hard else 1) + len(asked)), asked)
        faces = self.starts[others] + random.integers(self.references[others])
        # sorted, so that the file is read forwards
        embeddings = np.stack([self.embeddings[face] for face in faces]) if len(faces) else self.embeddings[:0]
        if not self.hard and self.too_similar is None:
            keep = random.permutation(len(others))[: self.count]
            return torch.from_numpy(embeddings[keep]), torch.from_numpy(others[keep])
        cosines = np.stack([self.centre(person) for person in asked]) @ unit(embeddings).T
        numbers = np.tile(others, (len(asked), 1))
        if self.too_similar is not None:
            numbers = np.where(cosines >= self.too_similar, asked[:, None], numbers)
            cosines = np.where(cosines >= self.too_similar, -np.inf, cosines)
        order = (
            np.argsort(-cosines, 1, kind="stable") if self.hard else np.argsort(np.isneginf(cosines), 1, kind="stable")
        )
        order = order[:, : self.count]
        return torch.from_numpy(embeddings[order]), torch.from_numpy(np.take_along_axis(numbers, order, 1))


def _how_to_write(encoder: str) -> str:
    return f"Write them with `idgen prepare --output SHARDS --cache embeddings --encoder {encoder}`."


def _load_array(shards: str, file: str) -> np.ndarray:
    try:
        return np.load(local_copy(join(shards, FOLDER)) / file, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # as in `IdentityBank`
        raise DataError(f"'{shards}' has no bank of people: {error}. Run `idgen prepare` to its end.") from error


def check_finite(place: str, embeddings: np.ndarray) -> None:
    """Raise DataError if an embedding, (faces, dim), is not finite; reads parts that fit into memory."""
    step = max(1, (1 << 24) // max(1, embeddings.shape[1]))
    for start in range(0, len(embeddings), step):
        bad = ~np.isfinite(embeddings[start : start + step]).all(1)
        if bad.any():
            raise DataError(f"The embedding of face {start + int(bad.argmax())} in '{place}' is not finite.")


def _check_bank(shards: str, people: pa.Table, embeddings: Any, rows: Any) -> slice:
    """The slice of the faces of these people."""
    kinds = {"person": pa.string(), "start": pa.int64(), "count": pa.int64(), REFERENCES: pa.int64()}
    needed = [name for name in kinds if name != REFERENCES or name in people.column_names]
    if any(
        name not in people.column_names or people[name].type != kinds[name] or people[name].null_count
        for name in needed
    ):
        raise DataError(f"The table of people in the bank of '{shards}' is damaged. Run `idgen prepare` again.")
    starts, counts = people["start"].to_numpy(), people["count"].to_numpy()
    whole = isinstance(embeddings, np.ndarray) and isinstance(rows, np.ndarray)
    whole = whole and embeddings.ndim == 2 and embeddings.dtype == np.float32 and embeddings.shape[1] > 0
    whole = whole and rows.shape == (len(embeddings), 2) and np.issubdtype(rows.dtype, np.integer)
    # counts are bounded first: their sum could overflow
    fits = whole and starts[0] >= 0 and ((counts >= 1) & (counts <= len(rows))).all()
    fits = fits and (np.diff(starts) == counts[:-1]).all() and starts[-1] + counts[-1] <= len(rows)
    if REFERENCES in needed:
        references = people[REFERENCES].to_numpy()
        fits = fits and ((references >= 1) & (references <= counts)).all()
    part = slice(int(starts[0]), int(starts[-1] + counts[-1]))
    if not fits or (rows[part] < 0).any():
        raise DataError(f"The files in the bank of '{shards}' do not fit together. Run `idgen prepare` again.")
    return part


def _few_of(random: np.random.Generator, total: int, count: int) -> np.ndarray:
    """Distinct random numbers below `total`, without a list of all numbers."""
    if count >= total:
        return np.arange(total)
    return np.sort(random.choice(total, count, replace=False, shuffle=False))
