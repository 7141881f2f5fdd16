"""Random access to the faces of a prepared set: their rows in the index, their cached columns and their shards."""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ..errors import DataError
from .bank import IdentityBank
from .columns import Column
from .far import COLUMNS as FAR_COLUMNS
from .index import read_index
from .manifest import Manifest
from .storage import join

_COLUMNS = ("key", "offset", "length", "width", "height", "box", "landmarks", "caption")
RELIABILITY = "reliability"


class FaceRows:
    """The faces of a split. Files are opened when they are first read, and again in each worker process.

    Args:
        shards: Folder or URL of a prepared set.
        split: "train", "validation" or "test".
        seed: Seed of the bank.

    Raises:
        DataError: The set is not finished, or the split has no people.
    """

    def __init__(self, shards: str, split: str, seed: int = 0) -> None:
        self.manifest = Manifest.open(shards)
        self.bank = IdentityBank(shards, split, seed=seed)
        self.shards, self.names = shards, list(self.manifest.shards)
        if (self.bank.rows[:, 0] >= len(self.names)).any():
            raise DataError(f"The bank of '{shards}' names shards that are not there. Run `idgen prepare` again.")
        self._open()

    @property
    def shards_of_items(self) -> np.ndarray:
        """(items,), the shard that each item is read from."""
        return np.asarray(self.bank.rows[:, 0])

    def row(self, face: int) -> dict[str, Any]:
        """The row of a face in the index."""
        shard, row = map(int, self.bank.rows[face])
        table = self._table(shard)
        if row >= len(table["offset"]):
            raise DataError(f"The bank of '{self.shards}' names row {row} of shard {shard}, which has fewer rows.")
        found = {name: column[row] for name, column in table.items()}
        numbers = [found["width"], found["height"], *(found["box"] or [None]), *(found["landmarks"] or [None])]
        if not all(number is not None and math.isfinite(number) for number in numbers) or min(numbers[:2]) < 1:
            raise DataError(f"Row {row} of shard {shard} in '{self.shards}' is not a face, or its values are damaged.")
        return found

    def _value(self, face: int, column: str, key: str | None = None) -> torch.Tensor | None:
        shard, row = self.bank.rows[face]
        return self._column(self.names[int(shard)], column, key)[int(row)]

    def _required(self, face: int, column: str, key: str | None = None) -> torch.Tensor:
        value = self._value(face, column, key)
        if value is None:
            raise DataError(
                f"The column '{column}' is older than the set. Write it again: idgen prepare --cache {column}"
            )
        return value

    def _tar(self, face: int) -> str:
        return join(self.shards, f"{self.names[int(self.bank.rows[face][0])]}.tar")

    def _read_table(self, shard: int) -> dict[str, list[Any]]:
        return read_index(
            join(self.shards, f"{self.names[shard]}.parquet"), _COLUMNS, (RELIABILITY, *FAR_COLUMNS)
        ).to_pydict()

    def _open_column(self, shard: str, name: str, key: str | None) -> Column:
        return Column(self.shards, shard, name, key)

    def _open(self) -> None:
        # a window of a plan spans a few shards; random access keeps this many open
        self._table = lru_cache(64)(self._read_table)
        self._column = lru_cache(256)(self._open_column)

    def __getstate__(self) -> dict[str, Any]:
        """Exclude open files, since each worker opens its own."""
        return {name: value for name, value in vars(self).items() if name not in ("_table", "_column")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state)
        self._open()
