"""Folders, archives and tables of photos → a stream of `Source`."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from typing import Any, Literal, TypeAlias

from fsspec.implementations.local import LocalFileSystem

from ..errors import DataError
from .archives import SUFFIXES, read_archives
from .members import hidden, sources_of
from .source import Blob, Source
from .storage import FileSystem, place, stamp
from .tables import read_table

Layout: TypeAlias = Literal["folders", "flat", "webdataset", "parquet", "csv", "jsonl"]
_SUFFIXES = {
    "webdataset": SUFFIXES,
    "parquet": (".parquet",),
    "csv": (".csv", ".tsv"),
    "jsonl": (".jsonl", ".ndjson"),
}


def find_sources(photos: str, layout: Layout) -> Iterator[Source]:
    """All inputs in a fixed order, as a stream: the list is never in memory as a whole.

    The same photos give the same people in every layout.

    Args:
        photos: A folder, a tar or a zip (any fsspec URL); for tables and webdataset one file or a folder of them.
        layout: "folders": one folder per person with photos at any depth; "flat": unknown people; "webdataset": tars
            or zips, where `key.json` may name the `person`; "parquet", "csv" and "jsonl": columns `image` (bytes) or
            `path`, `person`, `group`, `caption`, `licence`.

    Raises:
        DataError: `photos` does not exist, or has no file of the layout.
    """
    filesystem, root = place(photos)
    if not filesystem.exists(root):
        raise DataError(f"'{photos}' does not exist.")
    if layout in ("folders", "flat"):
        if not filesystem.isfile(root):
            return _walk(filesystem, root, layout == "folders")
        if not root.lower().endswith(SUFFIXES):
            raise DataError(f"'{photos}' is neither a folder nor a tar or zip. --layout is required for a table.")
        return read_archives(filesystem, [root], layout == "folders")
    files = [root] if filesystem.isfile(root) else sorted(_files_in(filesystem, root, _SUFFIXES[layout]))
    if not files:
        wanted = " or ".join(f"*{suffix}" for suffix in _SUFFIXES[layout])
        raise DataError(f"'{photos}' has no {wanted} file, which the layout '{layout}' needs.")
    if layout == "webdataset":
        return read_archives(filesystem, files)
    return itertools.chain.from_iterable(read_table(filesystem, path) for path in files)


def _files_in(filesystem: FileSystem, root: str, suffixes: tuple[str, ...]) -> Iterator[str]:
    for path in filesystem.find(root):
        if path.lower().endswith(suffixes) and not hidden(path[len(root) :].split("/")):
            yield path


def _walk(filesystem: FileSystem, root: str, people: bool) -> Iterator[Source]:
    """Depth first, sorted. A folder that was visited before (a loop of links) is an input that is dropped."""
    local = isinstance(filesystem, LocalFileSystem)
    seen: set[str] = set()

    def visit(folder: str, parts: tuple[str, ...]) -> Iterator[Source]:
        place = os.path.realpath(folder) if local else folder
        if place in seen:
            yield Source("/".join(parts), None, missing="symlink-loop")
            return
        seen.add(place)
        try:
            entries = filesystem.ls(folder, detail=True)
        except OSError:
            yield Source("/".join(parts), None, missing="unreadable-folder")
            return
        folders: list[tuple[str, str]] = []
        files: dict[tuple[str, ...], Blob] = {}
        for entry in entries:
            path = entry["name"].rstrip("/")
            name = path.rsplit("/", 1)[-1]
            if hidden([name]):
                continue
            if _is_folder(entry, local):
                folders.append((name, path))
            else:
                files[*parts, name] = Blob(filesystem, path, stamp(filesystem, path, entry))
        if not folders and not files:
            yield Source("/".join(parts), None, missing="empty-folder")
        yield from sources_of(files, people=people)
        for name, path in sorted(folders):
            yield from visit(path, (*parts, name))

    return visit(root, ())


def _is_folder(entry: dict[str, Any], local: bool) -> bool:
    return os.path.isdir(entry["name"]) if local else entry["type"] == "directory"
