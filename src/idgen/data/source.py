"""An input before it is opened: the location of its bytes, and its labels."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field

from fsspec.implementations.local import LocalFileSystem

from .metadata import NAMES, clean, decode, metadata_of_json
from .storage import FileSystem

MAX_CAPTION = 1 << 20
"""Largest part of a caption that is read, in bytes."""


@dataclass(frozen=True)
class Blob:
    """The location of bytes: a file, or a part of one.

    Attributes:
        filesystem: File system of the file.
        path: Path of the file; not a URL, since names may contain `::` and `#`.
        stamp: Changes with the content of the file; see `stamp`.
        start: First byte.
        length: Number of bytes; None means to the end.
    """

    filesystem: FileSystem = field(repr=False)
    path: str
    stamp: str = ""
    start: int = 0
    length: int | None = None

    def read(self, limit: int | None = None) -> bytes:
        """The bytes, or the first `limit` of them. Raises OSError if they cannot be read, or if the file is not a
        regular file: opening a pipe could wait forever."""
        if isinstance(self.filesystem, LocalFileSystem) and not os.path.isfile(self.path):
            raise FileNotFoundError(f"'{self.path}' is not a file")
        return self._read(limit)

    def _read(self, limit: int | None) -> bytes:
        length = limit if self.length is None or (limit is not None and limit < self.length) else self.length
        end = None if length is None else self.start + length
        return self.filesystem.cat_file(self.path, start=self.start, end=end)


@dataclass(frozen=True)
class Source:
    """One input.

    Attributes:
        name: Path within the input, for the report.
        photo: Location of the photo; None if there is none, for the reason in `missing`.
        label: Person, from the folder.
        sidecars: (suffix, location) of the sidecar files.
        metadata: Values from a table; see `metadata_of`.
        missing: Reason why there is no photo.
    """

    name: str
    photo: Blob | None
    label: str | None = None
    sidecars: tuple[tuple[str, Blob], ...] = ()
    metadata: dict[str, str] = field(default_factory=dict)
    missing: str | None = None

    def told(self) -> dict[str, str | None]:
        """The values of `NAMES` as texts. Captions that cannot be read
        are left out. A `.json` that names a person takes precedence over the folder."""
        metadata: dict[str, str | None] = dict.fromkeys(NAMES)
        metadata |= {"label": self.label, **self.metadata}
        for suffix, blob in self.sidecars:
            with suppress(OSError):
                text = decode(blob.read(MAX_CAPTION))
                metadata |= {"caption": text} if suffix == ".txt" else metadata_of_json(text)
        return {name: clean(text) for name, text in metadata.items()}
