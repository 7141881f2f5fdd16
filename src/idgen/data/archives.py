"""Photos in tars and zips: their members by where the bytes are, so that workers read a photo and no more."""

from __future__ import annotations

import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from posixpath import dirname, join, normpath

from ..errors import DataError
from .members import parts_of, shared_root, sources_of
from .source import Blob, Source
from .storage import FileSystem, address, stamp

SUFFIXES = (".tar", ".zip")
_UTF8_FLAG = 0x800
_FROM_DOS = 0


def read_archives(filesystem: FileSystem, paths: list[str], people: bool = True) -> Iterator[Source]:
    """All inputs of some archives, one archive after the other. The listing of one is held in memory.

    Args:
        filesystem: Where they are.
        paths: Of tars and zips.
        people: Whether folders in them are people. A folder that wraps all others is none; see `shared_root`.

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
        member: Its name there.
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
    """As unpacking would leave it: the last member of a name counts, and links lead to other members."""
    members = dict(listed)
    gone = {parts: Blob(filesystem, join(path, *parts)) for parts in members}
    for _ in range(2):  # a link to a link; longer chains count as missing
        members = {
            parts: members.get(where.target, where) if isinstance(where, _Link) else where
            for parts, where in members.items()
        }
    return {parts: gone[parts] if isinstance(where, _Link) else where for parts, where in members.items()}


def _list_tar(filesystem: FileSystem, path: str) -> Iterator[tuple[tuple[str, ...], Blob | _Link]]:
    version = stamp(filesystem, path)
    try:
        with filesystem.open(path, "rb") as file, tarfile.open(fileobj=file, mode="r:") as tar:
            for member in tar:
                tar.members.clear()  # pyright: ignore  # tarfile would keep every header
                if member.issym():
                    yield parts_of(member.name), _Link(parts_of(normpath(join(dirname(member.name), member.linkname))))
                elif member.islnk():
                    yield parts_of(member.name), _Link(parts_of(member.linkname))
                elif member.isfile():
                    yield parts_of(member.name), Blob(filesystem, path, version, member.offset_data, member.size)
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise DataError(f"'{address(filesystem, path)}' is not an uncompressed tar: {error}") from error


def _list_zip(filesystem: FileSystem, path: str) -> Iterator[tuple[tuple[str, ...], Blob | _Link]]:
    version = stamp(filesystem, path)
    try:
        infos = _open_zip(filesystem, path, version).infolist()
    except (zipfile.BadZipFile, ValueError, EOFError) as error:
        raise DataError(f"'{address(filesystem, path)}' is not a zip: {error}") from error
    for info in infos:
        if not info.is_dir():
            yield parts_of(_name_in_zip(info)), ZipMember(filesystem, path, version, member=info.filename)


@lru_cache(4)
def _open_zip(filesystem: FileSystem, path: str, version: str) -> zipfile.ZipFile:
    return zipfile.ZipFile(filesystem.open(path, "rb"))


def _name_in_zip(info: zipfile.ZipInfo) -> str:
    """macOS and Unix write names in UTF-8 without saying so; Windows may write `\\` between folders."""
    if info.create_system == _FROM_DOS:
        return info.filename.replace("\\", "/")
    if info.flag_bits & _UTF8_FLAG:
        return info.filename
    return info.filename.encode("cp437").decode("utf-8", "surrogateescape")
