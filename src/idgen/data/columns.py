"""Cached columns: outputs of frozen networks for each usable face, computed once and read at every step.

A column is one safetensors file per shard, `NAME.COLUMN.safetensors`: the concatenated values of all rows, the start
of each row, their shapes, and in the metadata the key of the model that made them.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import save_file

from ..errors import DataError, ImageError
from ..faces import load_photo
from ..faces.image_file import MAX_BYTES
from ..files import open_tensors, parse_json
from .engines import Engine, InProcess, one_thread
from .index import read_index
from .manifest import Manifest
from .storage import exists, join, local_file, locked, read_bytes, write_file

BATCH = 16


class Entry(NamedTuple):
    """A face, as the input of a `Maker`.

    Attributes:
        photo: (height, width, 3), uint8.
        row: Row of the index.
        landmarks: (5, 2), in pixels of the photo.
        alone: Whether its person has no other usable face.
    """

    photo: np.ndarray
    row: dict[str, Any]
    landmarks: np.ndarray
    alone: bool


class Maker(Protocol):
    """Computes the column `name`. It is pickled for workers, and opens its network at the first call."""

    @property
    def name(self) -> str: ...

    @property
    def parallel(self) -> bool:
        """Whether the engine's workers share the work. A large network runs in the main process instead, on the
        fastest device and with all threads."""
        ...

    def key(self) -> str:
        """Identifies the model and the settings that the values depend on."""
        ...

    def __call__(self, entries: Sequence[Entry]) -> list[torch.Tensor]:
        """A tensor of any shape for each entry; an empty one if the entry has no value."""
        ...


def write_column(
    shards: str, maker: Maker, engine: Engine | None = None, progress: Callable[[str], object] | None = None
) -> None:
    """Write a column of a finished set. Shards that already have it are skipped.

    Args:
        shards: Folder or URL of the set.
        maker: Computes the values.
        engine: Runs the maker if it is `parallel`; by default, this process.
        progress: Called with the name of each finished shard.

    Raises:
        DataError: The set is not finished or damaged, another process writes into it, or a column of this name was
            made by another model.
    """
    tasks = [ColumnTask(name) for name in Manifest.open(shards).shards]
    engine = engine if engine is not None and maker.parallel else InProcess()
    with locked(shards):
        for name in engine.run(tasks, ColumnWorker(shards, maker)):
            if progress is not None:
                progress(name)


@dataclass(frozen=True)
class ColumnTask:
    """One shard."""

    name: str


@dataclass
class ColumnWorker:
    """`write_column` for one shard, as engines run it."""

    shards: str
    maker: Maker

    def __call__(self, task: ColumnTask) -> str:
        url, key = column_url(self.shards, task.name, self.maker.name), self.maker.key()
        table = read_index(join(self.shards, f"{task.name}.parquet"))
        rows = [i for i, row in enumerate(_usable(table)) if row]
        # a column is outdated if its shard was made again or people were assigned again
        made_of = hashlib.sha256(repr((table.schema.metadata[b"tar_sha256"], rows)).encode()).hexdigest()
        if exists(url):
            found = _metadata(url)
            _check_key(url, found.get("model", ""), key)
            if found.get("made_of") == made_of:
                return task.name
        values: list[torch.Tensor] = [torch.zeros(0)] * len(table)
        with one_thread() if self.maker.parallel else nullcontext(), ThreadPoolExecutor(4) as threads:
            for start in range(0, len(rows), BATCH):
                part = rows[start : start + BATCH]
                for i, value in zip(part, self.maker(self._entries(task.name, table, part, threads)), strict=True):
                    values[i] = value.contiguous()
        _save(url, values, {"model": key, "made_of": made_of})
        return task.name

    def _entries(self, name: str, table: Any, rows: Sequence[int], threads: Executor) -> list[Entry]:
        tar = join(self.shards, f"{name}.tar")

        def entry(row: dict[str, Any]) -> Entry:
            return Entry(
                photo=open_photo(tar, row),
                row=row,
                landmarks=np.asarray(row["landmarks"]).reshape(5, 2),
                alone=row["centre"] == 1.0,  # the value for a person with one face
            )

        return list(threads.map(entry, table.take(rows).to_pylist()))


def open_photo(tar: str, row: dict[str, Any]) -> np.ndarray:
    """The photo of a row of the index, (height, width, 3) uint8, without reading the rest of the tar.

    Raises:
        DataError: The row has no position in the tar, or the photo cannot be read.
    """
    if row["offset"] is None or row["offset"] < 0 or not 0 < (row["length"] or 0) <= MAX_BYTES:
        raise DataError(f"A row of the index of '{tar}' is damaged: {row['length']} bytes from {row['offset']} on.")
    try:
        return load_photo(read_bytes(tar, row["offset"], row["length"]))
    except (OSError, ImageError) as error:
        raise DataError(
            f"The photo '{row['key']}' in the shard '{tar}' cannot be read: {error} Run `idgen prepare` again."
        ) from error


class Column:
    """A memory-mapped column of one shard.

    Args:
        shards: Folder or URL of the set.
        shard: Name of the shard.
        name: Name of the column.
        key: Key of the model that must have made it.

    Raises:
        DataError: The column does not exist, cannot be read, or was made by another model.
    """

    def __init__(self, shards: str, shard: str, name: str, key: str | None = None) -> None:
        url, found = column_url(shards, shard, name), column_key(shards, shard, name)
        if key is not None:
            _check_key(url, found, key)
        self._url, self._open = url, ExitStack()
        file = self._open.enter_context(_opened(url))
        with _blamed(url):
            starts, shapes = file.get_tensor("starts"), file.get_tensor("shapes")
            self._values = file.get_slice("values")
            if starts.ndim != 1 or shapes.ndim != 2 or len(starts) != len(shapes) + 1:
                raise DataError("the numbers of rows and shapes differ")
            if starts[0] != 0 or [int(starts[-1])] != self._values.get_shape() or (starts.diff() < 0).any():
                raise DataError("the rows are not contiguous")
            self._starts, self._shapes = starts.tolist(), shapes.tolist()

    def __getitem__(self, row: int) -> torch.Tensor | None:
        """The value of a row of the index, or None; raises DataError for a damaged file."""
        with _blamed(self._url):
            start, stop = self._starts[row], self._starts[row + 1]
            if start == stop:
                return None
            return self._values[start:stop].reshape([side for side in self._shapes[row] if side >= 0])


def column_key(shards: str, shard: str, name: str) -> str:
    """The key of the model that has made a column of a shard.

    Raises:
        DataError: The column does not exist, or cannot be read.
    """
    url = column_url(shards, shard, name)
    if not exists(url):
        raise DataError(f"The shard '{shard}' has no column '{name}'. Write it with `idgen prepare --cache {name}`.")
    return _metadata(url).get("model", "")


def column_url(shards: str, shard: str, name: str) -> str:
    return join(shards, f"{shard}.{name}.safetensors")


def _metadata(url: str) -> dict[str, str]:
    with _opened(url) as file:
        found = parse_json((file.metadata() or {}).get("idgen", "{}"), f"The description in '{url}'", DataError)
    return found if isinstance(found, dict) else {}


@contextmanager
def _opened(url: str) -> Iterator[Any]:
    with _blamed(url), open_tensors(local_file(url), DataError) as file:
        yield file


@contextmanager
def _blamed(url: str) -> Iterator[None]:
    """Turn all errors of reading a column into DataError."""
    try:
        yield
    except (DataError, SafetensorError, IndexError, OverflowError, RuntimeError, TypeError, ValueError) as error:
        raise DataError(f"'{url}' cannot be read: {error}. Delete it and write the column again.") from error


def _check_key(url: str, found: str, wanted: str) -> None:
    if found != wanted:
        raise DataError(
            f"'{url}' was made by '{found}', not '{wanted}'. Delete the column, or use that model and resolution."
        )


def _usable(table: Any) -> list[bool]:
    columns = (table[name].to_pylist() for name in ("dropped", "aside", "person"))
    return [
        dropped is None and aside is None and person is not None
        for dropped, aside, person in zip(*columns, strict=True)
    ]


def _save(url: str, values: Sequence[torch.Tensor], metadata: dict[str, str]) -> None:
    """Rows may differ in shape; missing dimensions are -1."""
    shapes = torch.full((len(values), max((value.ndim for value in values), default=1)), -1)
    for i, value in enumerate(values):
        shapes[i, : value.ndim] = torch.tensor(value.shape)
    sizes = torch.tensor([0, *(value.numel() for value in values)])
    kinds = {value.dtype for value in values if value.numel()}
    flat = [value.flatten() for value in values if value.numel()]
    tensors = {
        "values": torch.cat(flat) if flat else torch.zeros(0, dtype=next(iter(kinds), torch.float32)),
        "starts": sizes.cumsum(0),
        "shapes": shapes,
    }
    with write_file(url) as path:
        save_file(tensors, path, metadata={"idgen": json.dumps(metadata)})  # one key: several have no order
