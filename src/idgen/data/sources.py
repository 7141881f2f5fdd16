"""Where photos come from: folders, tars in webdataset's form, parquet and CSV tables → a stream of `Source`."""

from __future__ import annotations

import csv
import itertools
import os
import tarfile
import unicodedata
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Literal, TypeAlias

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
from fsspec.implementations.local import LocalFileSystem

from ..errors import DataError
from .storage import join, read_bytes

Layout: TypeAlias = Literal["folders", "flat", "webdataset", "parquet", "csv"]
SIDECARS = (".txt", ".json")


@dataclass(frozen=True)
class Blob:
    """Bytes somewhere: a file, a part of a tar, or a cell of a parquet table.

    Attributes:
        url: Of the file.
        start: First byte.
        length: How many; to the end if None.
        cell: Row group, row in it, and column.
    """

    url: str
    start: int = 0
    length: int | None = None
    cell: tuple[int, int, str] | None = None

    def read(self, limit: int | None = None) -> bytes:
        """The bytes, or the first so many. Raises OSError if they are gone."""
        if self.cell is not None:
            return _read_cell(self.url, *self.cell)[:limit]
        length = limit if self.length is None or (limit is not None and limit < self.length) else self.length
        return read_bytes(self.url, self.start, length)


@dataclass(frozen=True)
class Source:
    """One input, with whatever is known of it before it is opened.

    Attributes:
        name: Path within the input, for the report.
        photo: Where its bytes are; None if there are none, and `missing` says why.
        label: The person, by the layout.
        sidecars: (suffix, blob) of the caption beside it.
        facts: `caption` and `licence` from a table.
        missing: Why there is no photo.
    """

    name: str
    photo: Blob | None
    label: str | None = None
    sidecars: tuple[tuple[str, Blob], ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    missing: str | None = None


def find_sources(photos: str, layout: Layout) -> Iterator[Source]:
    """All inputs in a fixed order, one after the other: the list is never held in memory.

    Args:
        photos: A folder (any fsspec URL); for tables and tars, one file or a folder of them.
        layout: "folders": one folder a person, photos at any depth below it; "flat": people unknown;
            "webdataset": tars of `key.jpg` (+ `key.txt`, `key.json`), the key's folder or the json's `person` is the
            person; "parquet" and "csv": columns `image` (bytes) or `path`, `person`, `caption`, `licence`.

    Raises:
        DataError: There is nothing at `photos`.
    """
    filesystem, root = fsspec.url_to_fs(photos)
    if not filesystem.exists(root):
        raise DataError(f"There is nothing at '{photos}'. Give the folder of the photos.")
    if layout in ("folders", "flat"):
        return _walk(filesystem, root, layout == "folders")
    suffix, read = _READERS[layout]
    files = [root] if filesystem.isfile(root) else sorted(p for p in filesystem.find(root) if p.endswith(suffix))
    if not files:
        raise DataError(f"'{photos}' holds no *{suffix} file, which the layout '{layout}' reads.")
    return itertools.chain.from_iterable(read(filesystem.unstrip_protocol(path)) for path in files)


def _walk(filesystem: Any, root: str, people: bool) -> Iterator[Source]:
    """Depth first, sorted; a folder that was visited before (a loop of links) is an input that is dropped."""
    local = isinstance(filesystem, LocalFileSystem)
    seen: set[str] = set()

    def visit(folder: str) -> Iterator[Source]:
        relative = folder[len(root) :].strip("/")
        place = os.path.realpath(folder) if local else folder
        if place in seen:
            yield Source(relative, None, missing="symlink-loop")
            return
        seen.add(place)
        try:
            entries = sorted(filesystem.ls(folder, detail=True), key=lambda entry: entry["name"])
        except OSError:
            yield Source(relative, None, missing="unreadable-folder")
            return
        names = [(entry["name"].rstrip("/"), _is_folder(entry, local)) for entry in entries]
        names = [(name, is_folder) for name, is_folder in names if not os.path.basename(name).startswith(".")]
        if not names:
            yield Source(relative, None, missing="empty-folder")
        label = relative.split("/")[0] or None if people else None
        files: list[tuple[str, Blob]] = []
        for name in (name for name, is_folder in names if not is_folder):
            shown = name[len(root) :].strip("/")
            if local and not os.path.isfile(name):  # a broken link, or a pipe, which nobody may ever write to
                yield Source(shown, None, missing="missing")
            else:
                files.append((shown, Blob(filesystem.unstrip_protocol(name))))
        yield from _group(files, lambda _: label)
        for name, is_folder in names:
            if is_folder:
                yield from visit(name)

    return visit(root)


def _is_folder(entry: dict[str, Any], local: bool) -> bool:
    return os.path.isdir(entry["name"]) if local else entry["type"] == "directory"


def _group(members: Iterable[tuple[str, Blob]], label: Callable[[str], str | None]) -> Iterator[Source]:
    """Photos with the sidecars of the same name; members with a common key stand together."""
    for key, group in itertools.groupby(sorted(members, key=lambda member: _key(member[0])), lambda m: _key(m[0])):
        parts = sorted(group, key=lambda member: member[0])
        sidecars = tuple((suffix, blob) for name, blob in parts if (suffix := _suffix(name)) in SIDECARS)
        photos = [(name, blob) for name, blob in parts if _suffix(name) not in SIDECARS]
        for name, blob in photos:
            yield Source(name, blob, label(key), sidecars)
        if not photos:
            yield Source(parts[0][0], None, missing="sidecar-without-photo")


def _key(name: str) -> str:
    return os.path.splitext(name)[0]


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()


def clean(text: str | None) -> str | None:
    """Text as tables can hold it and as it compares; None if it is empty.

    Bytes that are not UTF-8 (Python holds them as lone surrogates) become their numbers. macOS writes é as two
    letters: without composing them one person would be two.
    """
    return unicodedata.normalize("NFC", text.encode("utf-8", "backslashreplace").decode()) if text else None


def _read_tar(url: str) -> Iterator[Source]:
    """Members by their offset, so that workers read them without the tar's headers."""

    def members(tar: tarfile.TarFile) -> Iterator[tuple[str, Blob]]:
        for member in tar:
            tar.members.clear()  # pyright: ignore  # tarfile would keep every header
            if member.isfile():
                yield member.name, Blob(url, member.offset_data, member.size)

    with fsspec.open(url, "rb") as file:
        try:
            with tarfile.open(fileobj=file, mode="r:") as tar:  # pyright: ignore[reportArgumentType, reportCallIssue]
                for _, group in itertools.groupby(members(tar), lambda member: _key(member[0])):
                    yield from _group(group, lambda key: os.path.dirname(key) or None)
        except tarfile.TarError as error:
            raise DataError(f"'{url}' is not an uncompressed tar: {error}") from error


def _read_csv(url: str) -> Iterator[Source]:
    with fsspec.open(url, "rt", encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)  # pyright: ignore[reportArgumentType]
        try:
            if "path" not in (rows.fieldnames or ()):
                raise DataError(f"'{url}' has no column 'path'; it has {rows.fieldnames}.")
            for number, row in enumerate(rows):
                yield _from_row(url, row, _beside(url, row["path"]), number)
        except (csv.Error, UnicodeDecodeError) as error:
            raise DataError(f"'{url}' is not a CSV table in UTF-8: {error}") from error


def _read_parquet(url: str) -> Iterator[Source]:
    try:
        with fsspec.open(url, "rb") as file:
            table = pq.ParquetFile(file)  # pyright: ignore[reportArgumentType]
            names = table.schema_arrow.names
            if not {"image", "path"} & set(names):
                raise DataError(f"'{url}' has neither a column 'image' nor 'path'; it has {names}.")
            wanted = [name for name in ("path", "person", "caption", "licence") if name in names]
            number = itertools.count()
            for group in range(table.num_row_groups):
                facts = table.read_row_group(group, columns=wanted).to_pylist() if wanted else None
                for i in range(table.metadata.row_group(group).num_rows):
                    row = facts[i] if facts else {}
                    photo = Blob(url, cell=(group, i, "image")) if "image" in names else _beside(url, row["path"])
                    yield _from_row(url, row, photo, next(number))
    except pa.ArrowException as error:
        raise DataError(f"'{url}' is not a parquet table: {error}") from error


def _from_row(url: str, row: dict[str, Any], photo: Blob | None, number: int) -> Source:
    facts = {key: str(row[key]) for key in ("caption", "licence") if row.get(key)}
    name = row.get("path") or f"{os.path.basename(url)}#{number}"
    label = row.get("person")
    missing = None if photo else "missing"
    return Source(str(name), photo, str(label) if label not in (None, "") else None, facts=facts, missing=missing)


def _beside(url: str, path: str | None) -> Blob | None:
    """Paths in a table are absolute, URLs, or relative to the table."""
    if not path:
        return None
    return Blob(path if "://" in path or path.startswith("/") else join(os.path.dirname(url), path))


def _read_cell(url: str, group: int, row: int, column: str) -> bytes:
    filesystem, path = fsspec.url_to_fs(url)
    value = _read_column(url, filesystem.ukey(path), group, column)[row].as_py()
    value = value.get("bytes") if isinstance(value, dict) else value  # Hugging Face's image columns
    if not isinstance(value, bytes):
        raise OSError(f"row {row} of '{url}' holds no picture")
    return value


@lru_cache(1)  # photos are read in their order, and a row group is read as a whole
def _read_column(url: str, version: str, group: int, column: str) -> pa.ChunkedArray:
    try:
        with fsspec.open(url, "rb") as file:
            return pq.ParquetFile(file).read_row_group(group, columns=[column])[column]  # pyright: ignore[reportArgumentType]
    except pa.ArrowException as error:
        raise OSError(f"'{url}' cannot be read: {error}") from error


_READERS: dict[str, tuple[str, Callable[[str], Iterator[Source]]]] = {
    "webdataset": (".tar", _read_tar),
    "parquet": (".parquet", _read_parquet),
    "csv": (".csv", _read_csv),
}
