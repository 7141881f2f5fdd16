"""Files on a disk or an object store, through fsspec, and writing them whole or not at all."""

from __future__ import annotations

import atexit
import hashlib
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
from fsspec.implementations.local import LocalFileSystem

from .. import files
from ..errors import DataError
from ..files import PARTIAL as PARTIAL


def join(folder: str, name: str) -> str:
    """`folder/name`, for paths and URLs alike."""
    return f"{folder.rstrip('/')}/{name}"


def exists(url: str) -> bool:
    filesystem, path = fsspec.url_to_fs(url)
    return filesystem.exists(path)


def size(url: str) -> int:
    """Bytes of a file."""
    filesystem, path = fsspec.url_to_fs(url)
    return int(filesystem.size(path))


def lies_in(url: str, folder: str) -> bool:
    """Whether a place is a folder or lies in it, links followed."""
    (filesystem, path), (other, root) = fsspec.url_to_fs(url), fsspec.url_to_fs(folder)
    if isinstance(filesystem, LocalFileSystem):
        path, root = os.path.realpath(path), os.path.realpath(root)
    return type(filesystem) is type(other) and f"{path}/".startswith(f"{root.rstrip('/')}/")


def read_bytes(url: str, start: int = 0, length: int | None = None) -> bytes:
    """All of a file, or `length` bytes from `start` on (a range request on an object store)."""
    filesystem, path = fsspec.url_to_fs(url)
    return filesystem.cat_file(path, start=start, end=None if length is None else start + length)


def sha256(url: str) -> str:
    digest = hashlib.sha256()
    with fsspec.open(url, "rb") as file:
        while block := file.read(1 << 20):  # pyright: ignore[reportAttributeAccessIssue]
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def write_whole(url: str) -> Iterator[Path]:
    """Give a path to write to; what was written appears at `url` when the block ends without an error.

    On a disk the file is written beside its place and renamed. On an object store it is uploaded from a temporary
    file: an object becomes visible only when its upload is complete.

    Raises:
        DataError: It cannot be written, because the disk is full, say. Nothing is left behind.
    """
    filesystem, target = fsspec.url_to_fs(url)
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
    """The folder itself if it is on a disk, else a copy of it that lasts as long as the process."""
    filesystem, path = fsspec.url_to_fs(folder)
    if isinstance(filesystem, LocalFileSystem):
        return Path(path)
    copy = tempfile.TemporaryDirectory(prefix="idgen-")
    atexit.register(copy.cleanup)
    filesystem.get(path.rstrip("/") + "/", copy.name + "/", recursive=True)
    return Path(copy.name)


def delete(url: str) -> None:
    """Remove a file, if it is there."""
    filesystem, path = fsspec.url_to_fs(url)
    if filesystem.exists(path):
        filesystem.rm_file(path)


def find(folder: str) -> list[str]:
    """URLs of the files directly in a folder, sorted; none if it does not exist."""
    filesystem, path = fsspec.url_to_fs(folder)
    if not filesystem.exists(path):
        return []
    return sorted(filesystem.unstrip_protocol(name) for name in filesystem.find(path, maxdepth=1))


def local_file(url: str) -> str:
    """The path of a file on a disk; of any other, the path of a copy that fsspec keeps for the next time."""
    filesystem, path = fsspec.url_to_fs(url)
    if isinstance(filesystem, LocalFileSystem):
        return path
    return str(fsspec.open_local(f"filecache::{url}", filecache={"check_files": True}))
