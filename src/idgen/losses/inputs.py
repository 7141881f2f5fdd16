"""`Inputs`: what losses and rewards read, computed when it is first read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

from ..errors import LossError


class Inputs(Mapping[str, Any]):
    """The base of typed inputs: a mapping of the public attributes and properties of a subclass.

    A `cached_property` is computed when a loss first reads it. What no loss reads costs nothing, nor what is read only
    by losses whose gate is closed for the whole batch. So no property may run a collective operation: another process
    may not need it, and would never join.
    """

    def __getitem__(self, name: str) -> Any:
        if name not in self._names():
            raise KeyError(name)
        return getattr(self, name)

    def __contains__(self, name: object) -> bool:
        return name in self._names()

    def __iter__(self) -> Iterator[str]:
        return iter(self._names())

    def __len__(self) -> int:
        return len(self._names())

    def by(self, encoder: str) -> Inputs:
        """The inputs with the embeddings of another face encoder."""
        raise LossError(f"These inputs have no embeddings by '{encoder}'.")

    def _names(self) -> list[str]:
        """Names only: nothing is computed."""
        members = (part for kind in type(self).__mro__ for part in vars(kind).items())
        properties = [name for name, member in members if isinstance(member, cached_property | property)]
        return sorted({name for name in (*vars(self), *properties) if not name.startswith("_")})
