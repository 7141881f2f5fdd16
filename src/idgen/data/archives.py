"""Photos in tars and zips. Members are known by their byte ranges, so workers read single photos."""

from __future__ import annotations

import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from posixpath import dirname, join, normpath
from typing import Any

from ..errors import DataError
from .members import parts_of, shared_root, sources_of
from .source import Blob, Source
from .storage import FileSystem, address, stamp

SUFFIXES = (".tar", ".zip")
MAX_HEADER = 1 << 20
"""Largest header of a tar member in bytes, with long names and pax records."""

_UTF8_FLAG = 0x800
_FROM_DOS = 0


def read_archives(filesystem: FileSystem, paths: list[str], people: bool = True) -> Iterator[Source]:
    """All inputs of several archives in order. Only the list of one archive is in memory at a time.

    Args:
        filesystem: File system of the archives.
        paths: Paths of tars and zips.
        people: Whether folders are people. A folder that contains all others is not; see `shared_root`.

    Raises:
        DataError: A file is not an uncompressed tar or a zip.
    """
    root = shared_root(parts for path in paths for parts, _ in _list(filesystem, path)) if people else 0
    for path in paths:
        yield from sources_of(_resolve(_list(filesystem, path), filesystem, path), root, people)


@dataclass(frozen=True)
class ZipMember(Blob):
    """A member of a zip.

    Attributes:
        member: Name of the member.
    """

    member: str = ""

    def _read(self, limit: int | None) -> bytes:
        try:
            with _open_zip(self.filesystem, self.path, self.stamp).open(self.member) as file:
                return file.read(-1 if limit is None else limit)
        except (zipfile.BadZipFile, zlib.error, EOFError, KeyError, RuntimeError, NotImplementedError) as error:
            raise OSError(f"'{self.member}' in '{self.path}' cannot be read: {error}") from error


@dataclass(frozen=True)
class _Link:
    """A link to another member of a tar."""

    target: tuple[str, ...]


def _list(filesystem: FileSystem, path: str) -> Iterator[tuple[tuple[str, ...], Blob | _Link]]:
    read = _list_zip if path.lower().endswith(".zip") else _list_tar
    return ((parts, where) for parts, where in read(filesystem, path) if parts)


def _resolve(
    listed: Iterator[tuple[tuple[str, ...], Blob | _Link]], filesystem: FileSystem, path: str
) -> dict[tuple[str, ...], Blob]:
    """The members as after unpacking: the last one of each name, with links resolved."""
    members = dict(listed)
    gone = {parts: Blob(filesystem, join(path, *parts)) for parts in members}
    for _ in range(2):  # a link to a link; longer chains count as missing
        members = {
            parts: members.get(where.target, where) if isinstance(where, _Link) else where
            for parts, where in members.items()
        }
    return {parts: gone[parts] if isinstance(where, _Link) else where for parts, where in members.items()}


def _list_tar(filesystem: FileSystem, path: str) -> Iterator[tuple[tuple[str, ...], Blob | _Link]]:
    version, end = stamp(filesystem, path), 0
    try:
        size = filesystem.size(path) or sys.maxsize  # some servers do not report it
        headers: Any = _Headers(filesystem.open(path, "rb"), size)
        with headers, tarfile.open(fileobj=headers, mode="r:") as tar:
            for member in tar:
                tar.members.clear()  # pyright: ignore  # tarfile would keep every header
                if not (end <= member.offset and 0 <= member.size <= size):
                    raise tarfile.ReadError(f"'{member.name[:200]}' declares a size of {member.size:.0e} bytes")
                end = member.offset_data
                if member.issym():
                    yield parts_of(member.name), _Link(parts_of(normpath(join(dirname(member.name), member.linkname))))
                elif member.islnk():
                    yield parts_of(member.name), _Link(parts_of(member.linkname))
                elif member.isfile():
                    yield parts_of(member.name), Blob(filesystem, path, version, member.offset_data, member.size)
    except Exception as error:  # tarfile raises many types for damaged headers
        raise DataError(f"'{address(filesystem, path)}' is not an uncompressed tar: {error}") from error


class _Headers:
    """A file for tarfile that reads at most `MAX_HEADER` bytes at once, and none beyond the end."""

    def __init__(self, file: Any, size: int) -> None:
        self._file, self._size = file, size

    def read(self, count: int) -> bytes:
        if count > MAX_HEADER:
            raise tarfile.ReadError(f"a header declares a size of {count:.0e} bytes")
        return self._file.read(count)

    def seek(self, place: int) -> int:
        if not 0 <= place <= self._size:
            raise tarfile.ReadError("a member extends beyond the end of the file")
        return self._file.seek(place)

    def tell(self) -> int:
        return self._file.tell()

    def __enter__(self) -> None:
        self._file.__enter__()

    def __exit__(self, *error: Any) -> None:
        self._file.__exit__(*error)


def _list_zip(filesystem: FileSystem, path: str) -> Iterator[tuple[tuple[str, ...], Blob | _Link]]:
    version = stamp(filesystem, path)
    try:
        infos = _open_zip(filesystem, path, version).infolist()
    except Exception as error:  # zipfile raises many types for damaged headers
        raise DataError(f"'{address(filesystem, path)}' is not a zip: {error}") from error
    for info in infos:
        if not info.is_dir():
            yield parts_of(_name_in_zip(info)), ZipMember(filesystem, path, version, member=info.filename)


@lru_cache(4)
def _open_zip(filesystem: FileSystem, path: str, version: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(filesystem.open(path, "rb"))


def _name_in_zip(info: zipfile.ZipInfo) -> str:
    """The name of a member. macOS and Unix use UTF-8 without the flag; Windows may separate folders by `\\`."""
    if info.create_system == _FROM_DOS:
        return info.filename.replace("\\", "/")
    if info.flag_bits & _UTF8_FLAG:
        return info.filename
    return info.filename.encode("cp437").decode("utf-8", "surrogateescape")
