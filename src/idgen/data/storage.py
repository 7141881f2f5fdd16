"""Files on a disk or an object store through fsspec, with atomic writes."""

from __future__ import annotations

import atexit
import hashlib
import os
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import lru_cache
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import fsspec
from fsspec.implementations.local import LocalFileSystem

from .. import files
from ..errors import DataError
from ..files import PARTIAL as PARTIAL

FileSystem: TypeAlias = Any
"""An `fsspec.AbstractFileSystem`, whose own annotations are too general."""


def place(url: str) -> tuple[FileSystem, str]:
    """The file system and the path of a path or URL.

    Text without `://` is a path on the disk; fsspec would read `a::b` as a chain of URLs.
    """
    if "://" in url:
        return fsspec.url_to_fs(url)
    return (filesystem := LocalFileSystem()), str(filesystem._strip_protocol(url))


def address(filesystem: FileSystem, path: str) -> str:
    """The path or URL of a file system and a path: the inverse of `place`."""
    return path if isinstance(filesystem, LocalFileSystem) else filesystem.unstrip_protocol(path)


def open_file(url: str) -> BinaryIO:
    """Open a file for reading bytes."""
    filesystem, path = place(url)
    return filesystem.open(path, "rb")


def stamp(filesystem: FileSystem, path: str, info: Mapping[str, object] | None = None) -> str:
    """Text that changes whenever a file is replaced or written to, even with the same name and size.

    Args:
        filesystem: File system of the file.
        path: Path of the file.
        info: Entry of a listing, if there is one; not used for files on a disk.

    Returns:
        Size and times of a file on a disk, with links followed. Elsewhere a hash of all that the store reports: times,
        an ETag, a checksum. Empty if the file does not exist.
    """
    try:
        if isinstance(filesystem, LocalFileSystem):
            found = os.stat(path)
            return f"{found.st_size}-{found.st_mtime_ns}-{found.st_ctime_ns}"
        told = dict(filesystem.info(path) if info is None else info)
    except OSError:
        return ""
    return hashlib.sha256(repr(sorted((key, str(value)) for key, value in told.items())).encode()).hexdigest()


def join(folder: str, name: str) -> str:
    """`folder/name`, for paths and URLs alike."""
    return f"{folder.rstrip('/')}/{name}"


def exists(url: str) -> bool:
    filesystem, path = place(url)
    return filesystem.exists(path)


def size(url: str) -> int:
    """Size of a file in bytes."""
    filesystem, path = place(url)
    return int(filesystem.size(path))


def lies_in(url: str, folder: str) -> bool:
    """Whether a path is a folder or inside of it, with links followed."""
    (filesystem, path), (other, root) = place(url), place(folder)
    if isinstance(filesystem, LocalFileSystem):
        path, root = os.path.realpath(path), os.path.realpath(root)
    return type(filesystem) is type(other) and f"{path}/".startswith(f"{root.rstrip('/')}/")


def read_bytes(url: str, start: int = 0, length: int | None = None) -> bytes:
    """Read a file, or `length` bytes from `start` on (a range request on an object store)."""
    filesystem, path = place(url)
    return filesystem.cat_file(path, start=start, end=None if length is None else start + length)


def sha256(url: str) -> str:
    digest = hashlib.sha256()
    with open_file(url) as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def checksum(url: str) -> str | None:
    """The SHA-256 of a file on a disk, computed once per process while the file is unchanged. None for object stores,
    where the whole file would be downloaded."""
    filesystem, path = place(url)
    return _checksum(path, stamp(filesystem, path)) if isinstance(filesystem, LocalFileSystem) else None


@lru_cache(1 << 16)
def _checksum(path: str, version: str) -> str:
    return sha256(path)


@contextmanager
def locked(folder: str) -> Iterator[None]:
    """Lock a folder on a disk; see `idgen.files.locked`. Object stores have no locks: nothing is locked there.

    Raises:
        DataError: Another process holds the lock, or the folder cannot be written.
    """
    filesystem, path = place(folder)
    with files.locked(path, DataError) if isinstance(filesystem, LocalFileSystem) else nullcontext():
        yield


@contextmanager
def write_file(url: str) -> Iterator[Path]:
    """Write a file atomically: yields a temporary path, whose file appears at `url` when the block ends.

    On a disk it is `idgen.files.write_whole`. On an object store the temporary file is uploaded: an object becomes
    visible only when its upload is complete.

    Raises:
        DataError: The file cannot be written. Nothing is left behind.
    """
    filesystem, target = place(url)
    if isinstance(filesystem, LocalFileSystem):
        with files.write_whole(target, DataError) as new:
            yield new
        return
    with tempfile.TemporaryDirectory(prefix="idgen-") as folder:
        new = Path(folder, "new")
        try:
            yield new
            filesystem.put_file(str(new), target)
        except OSError as error:
            raise DataError(files.unwritten(url, error)) from error


def local_copy(folder: str) -> Path:
    """The folder if it is on a disk, otherwise a copy of it that is deleted when the process ends."""
    filesystem, path = place(folder)
    if isinstance(filesystem, LocalFileSystem):
        return Path(path)
    copy = tempfile.TemporaryDirectory(prefix="idgen-")
    atexit.register(copy.cleanup)
    filesystem.get(path.rstrip("/") + "/", copy.name + "/", recursive=True)
    return Path(copy.name)


def delete(url: str) -> None:
    """Delete a file if it exists."""
    filesystem, path = place(url)
    if filesystem.exists(path):
        filesystem.rm_file(path)


def find(folder: str) -> list[str]:
    """URLs of the files directly in a folder, sorted; none if it does not exist."""
    filesystem, path = place(folder)
    if not filesystem.exists(path):
        return []
    return sorted(address(filesystem, name) for name in filesystem.find(path, maxdepth=1))


def local_file(url: str) -> str:
    """The path of a file if it is on a disk, otherwise that of a copy in fsspec's cache."""
    filesystem, path = place(url)
    if isinstance(filesystem, LocalFileSystem):
        return path
    return str(fsspec.open_local(f"filecache::{url}", filecache={"check_files": True}))
