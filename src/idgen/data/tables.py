"""Tables of photos: CSV, JSON lines and parquet, row by row."""

from __future__ import annotations

import csv
import itertools
import json
import posixpath
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from ..errors import DataError, IdgenError, MissingDependencyError
from .metadata import COLUMNS, encoding_of, metadata_of
from .source import Blob, Source
from .storage import FileSystem, address, place, stamp

_PATHS = ("path", "file_name")  # the second is Hugging Face's name
_WANTED = (*_PATHS, *COLUMNS)


@dataclass(frozen=True)
class Cell(Blob):
    """A picture in a parquet table: its bytes, or in Hugging Face's image columns bytes or a path.

    Attributes:
        group: Number of the row group.
        row: Row in the group.
    """

    group: int = 0
    row: int = 0

    def _read(self, limit: int | None) -> bytes:
        value = _images_of(self.filesystem, self.path, self.stamp, self.group).read(self.row)
        if isinstance(value, dict):
            value = value.get("bytes") or value.get("path")
        if isinstance(value, str):
            beside = _beside(self.filesystem, self.path, value)
            value = beside.read(limit) if beside else None
        if not isinstance(value, bytes):
            raise OSError(f"row {self.row} of group {self.group} in '{self.path}' contains no picture")
        return value[:limit]


def read_table(filesystem: FileSystem, path: str) -> Iterator[Source]:
    """The inputs of one table. A row that cannot be read is an input without a photo.

    Raises:
        DataError: The file is not a table of the type of its suffix, or has no column for the photos.
    """
    if path.lower().endswith(".parquet"):
        yield from _read_parquet(filesystem, path)
        return
    told: set[str] = set()
    for number, row in enumerate(read_rows(filesystem, path)):
        told |= set(row or ())
        yield _from_row(filesystem, path, row or {}, number)
    if not told & set(_PATHS):
        raise DataError(f"'{address(filesystem, path)}' has no column 'path'. Its columns: {sorted(map(str, told))}.")


def read_rows(filesystem: FileSystem, path: str) -> Iterator[dict[str, Any] | None]:
    """The rows of a table of CSV or JSON lines, column → value; None for a row that cannot be read.

    The encoding is that of `encoding_of`. CSV is separated by commas, semicolons or tabs, whichever is most frequent
    in the header; column names are read in lower case.
    """
    with filesystem.open(path, "rb") as file:
        encoding = encoding_of(iter(lambda: file.read(1 << 20), b""))
    with filesystem.open(path, "rt", encoding=encoding, errors="replace", newline="") as file:
        yield from (_rows_of_csv if path.lower().endswith((".csv", ".tsv")) else _rows_of_jsonl)(file)


def _rows_of_csv(lines: Iterator[str]) -> Iterator[dict[str, Any] | None]:
    header = next(lines, "").lower()
    separator = max(",;\t", key=header.count)
    rows = csv.DictReader(itertools.chain([header], lines), delimiter=separator, skipinitialspace=True)
    rows.fieldnames = [name.strip() for name in rows.fieldnames or ()]
    while True:
        try:
            yield next(rows)
        except csv.Error:
            yield None
        except StopIteration:
            return


def _rows_of_jsonl(lines: Iterator[str]) -> Iterator[dict[str, Any] | None]:
    for line in lines:
        try:
            row = json.loads(line) if line.strip() else {}
        except (ValueError, RecursionError):
            row = None
        if row != {}:
            yield row if isinstance(row, dict) else None


def _read_parquet(filesystem: FileSystem, path: str) -> Iterator[Source]:
    try:
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingDependencyError("Parquet needs pyarrow: pip install 'idgen-diffusers[data]'") from error

    version = stamp(filesystem, path)
    try:
        with filesystem.open(path, "rb") as file:
            table = pq.ParquetFile(file, pre_buffer=False)
            names = table.schema_arrow.names
            if not {"image", *_PATHS} & set(names):
                raise DataError(f"'{address(filesystem, path)}' has no column 'image' or 'path'; it has {names}.")
            wanted = [name for name in _WANTED if name in names]
            number = itertools.count()
            for group in range(table.num_row_groups):
                for i, row in enumerate(_rows_of(table, group, wanted)):
                    cell = Cell(filesystem, path, version, group=group, row=i) if "image" in names else None
                    yield _from_row(filesystem, path, row, next(number), cell)
    except IdgenError:
        raise
    except Exception as error:  # also for text that is not UTF-8 and dates that Python lacks
        raise DataError(f"'{address(filesystem, path)}' is not a parquet table: {error}") from error


def _rows_of(table: Any, group: int, wanted: list[str]) -> Iterator[dict[str, Any]]:
    """Few rows at a time: a small file can repeat one long value and fill the memory."""
    if not wanted:
        yield from itertools.repeat({}, table.metadata.row_group(group).num_rows)
        return
    for batch in table.iter_batches(batch_size=16, row_groups=[group], columns=wanted):
        yield from batch.to_pylist()


def _from_row(
    filesystem: FileSystem, table: str, row: Mapping[str, Any], number: int, cell: Cell | None = None
) -> Source:
    path = next((row[name] for name in _PATHS if row.get(name)), None)
    photo = cell or _beside(filesystem, table, path)
    name = path if isinstance(path, str) else f"{posixpath.basename(table)}#{number}"
    metadata = metadata_of(row)
    return Source(name, photo, metadata.pop("label", None), metadata=metadata, missing=None if photo else "missing")


def _beside(filesystem: FileSystem, table: str, path: Any) -> Blob | None:
    """The photo that a table names by a URL, by an absolute path on the disk, or relative to the table. The last part
    of a chain of URLs, such as `zip://anna/1.jpg::photos.zip`, may be relative too.

    None for an invalid path. Whether the file exists is checked when it is read. Photos of remote stores get no stamp,
    which would take a request for each.
    """
    if not isinstance(path, str) or not path:
        return None
    *chain, last = path.split("::") if "://" in path else [path]
    try:
        if "://" in last or last.startswith("/"):
            found = place("::".join((*chain, last)))
        else:
            last = posixpath.normpath(posixpath.join(posixpath.dirname(table), last))
            found = place("::".join((*chain, address(filesystem, last)))) if chain else (filesystem, last)
        return Blob(*found, "" if found[0].async_impl else stamp(*found))
    except Exception:  # an unknown protocol, a missing library, a missing server
        return None


@lru_cache(1)  # photos are read in their order
def _images_of(filesystem: FileSystem, path: str, version: str, group: int) -> _Images:
    return _Images(filesystem, path, group)


class _Images:
    """The column `image` of a row group, with one row at a time in memory."""

    def __init__(self, filesystem: FileSystem, path: str, group: int) -> None:
        self._place = filesystem, path, group
        self._rows: Iterator[Any] = iter(())
        self._next = 0

    def read(self, row: int) -> Any:
        """The value of a row; raises OSError if it cannot be read."""
        try:
            if row < self._next or not self._next:
                self._rows, self._next = self._open(), 0
            skipped = row - self._next
            self._next = row + 1
            return next(itertools.islice(self._rows, skipped, None))
        except Exception as error:
            self._next = 0
            raise OSError(f"row {row} in '{self._place[1]}' cannot be read: {error}") from error

    def _open(self) -> Iterator[Any]:
        import pyarrow.parquet as pq

        filesystem, path, group = self._place
        with filesystem.open(path, "rb") as file:
            table = pq.ParquetFile(file, pre_buffer=False)
            for batch in table.iter_batches(batch_size=1, row_groups=[group], columns=["image"]):
                yield batch.column(0)[0].as_py()
