"""An input before it is opened: where its bytes are, and what is known of it."""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field

from fsspec.implementations.local import LocalFileSystem

from .facts import FACTS, clean, decode, facts_of_json
from .storage import FileSystem

MAX_CAPTION = 1 << 20
"""Bytes of a caption that are read."""


@dataclass(frozen=True)
class Blob:
    """Bytes somewhere: a file, or a part of one.

    Attributes:
        filesystem: Where the file is.
        path: Of the file there. A path, not a URL: names may hold `::` and `#`.
        stamp: Changes with the content of the file; see `stamp`.
        start: First byte.
        length: How many; to the end if None.
    """

    filesystem: FileSystem = field(repr=False)
    path: str
    stamp: str = ""
    start: int = 0
    length: int | None = None

    def read(self, limit: int | None = None) -> bytes:
        """The bytes, or the first `limit` of them. Raises OSError if they are gone, or if it is not a regular file:
        opening a pipe could wait forever."""
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
        photo: Where its bytes are; None if there are none, and `missing` says why.
        label: The person, by the folder it lies in.
        sidecars: (suffix, blob) of the captions beside it.
        facts: What a table says; see `facts_of`.
        missing: Why there is no photo.
    """

    name: str
    photo: Blob | None
    label: str | None = None
    sidecars: tuple[tuple[str, Blob], ...] = ()
    facts: dict[str, str] = field(default_factory=dict)
    missing: str | None = None

    def told(self) -> dict[str, str | None]:
        """`label`, `caption`, `licence`, `reference` and `landmarks` as texts. A caption that cannot be read is left
        out; a `.json` that names a person overrules the folder."""
        facts: dict[str, str | None] = dict.fromkeys(FACTS)
        facts |= {"label": self.label, **self.facts}
        for suffix, blob in self.sidecars:
            with suppress(OSError):
                text = decode(blob.read(MAX_CAPTION))
                facts |= {"caption": text} if suffix == ".txt" else facts_of_json(text)
        return {name: clean(text) for name, text in facts.items()}
