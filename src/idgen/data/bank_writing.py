"""Writing the bank: the usable faces of a set sorted by person, and the embeddings of other encoders."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ..errors import DataError
from .bank import EMBEDDINGS, FOLDER, REFERENCES, check_finite, how_to_write
from .columns import Column
from .index import read_index, usable_rows
from .makers import embeds_column
from .manifest import Manifest
from .storage import delete, find, join, local_copy, locked, open_file, write_file

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
    rows = _load_rows(shards)
    first = Column(shards, names[int(rows[0, 0])], embeds_column(encoder), encoder)[int(rows[0, 1])]
    if first is None:
        raise DataError(f"The embeddings of '{encoder}' in '{shards}' are older than the set. {how_to_write(encoder)}")
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


def _load_rows(shards: str) -> np.ndarray:
    try:
        return np.load(local_copy(join(shards, FOLDER)) / "rows.npy", mmap_mode="r", allow_pickle=False)
    except Exception as error:  # as in `IdentityBank`
        raise DataError(f"'{shards}' has no bank of people: {error}. Run `idgen prepare` to its end.") from error
