"""`IdentityBank`: the embeddings of all people in a set, sorted by person, on disk."""

from __future__ import annotations

from functools import cached_property, partial
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch

from ..errors import DataError
from .clustering import unit
from .makers import embeds_column
from .storage import exists, join, local_copy

FOLDER, EMBEDDINGS = "bank", "embeddings.npy"
REFERENCES = "references"
_BLOCK = 1 << 16  # embeddings that are read at once


class IdentityBank:
    """The memory-mapped embeddings of all people in a split, from which negatives are drawn.

    Args:
        shards: Folder or URL of a prepared set; from a URL the bank is copied to a temporary folder.
        split: "train", "validation" or "test".
        count: Number of negatives per draw.
        hard: Draw eight times as many and keep the most similar ones for each person, (batch, count) instead of
            (count,).
        too_similar: People whose centre has a higher cosine to that of the person are left out too: they are most
            likely the same person under two names.
        seed: Seed of the draws.
        encoder: Stored name of another encoder than the set's, whose embeddings `idgen prepare --cache embeddings`
            wrote.

    Raises:
        DataError: There is no bank, the split has no people, or the bank is damaged: its files do not fit together, or
            an embedding is not finite. All embeddings of the split are read once to check this.

    Attributes:
        people: Names; the number of a person is the index in this list.
        groups: Group of each person; None where the data has none.
        starts: (people,), the first face of each.
        counts: (people,), number of faces.
        references: (people,), how many of them, the first ones, may be references; in a set of an earlier version all.
        embeddings: (faces, dim), float32, raw, memory-mapped.
        rows: (faces, 2), the shard's number and the row in its index.
    """

    def __init__(
        self,
        shards: str,
        split: str = "train",
        *,
        count: int = 1024,
        hard: bool = False,
        too_similar: float | None = None,
        seed: int = 0,
        encoder: str | None = None,
        _reopened: bool = False,
    ) -> None:
        self._arguments = {
            "shards": shards,
            "split": split,
            "count": count,
            "hard": hard,
            "too_similar": too_similar,
            "seed": seed,
            "encoder": encoder,
        }
        file = EMBEDDINGS if encoder is None else f"{embeds_column(encoder)}.npy"
        if encoder is not None and not exists(join(shards, f"{FOLDER}/{file}")):
            raise DataError(f"'{shards}' has no embeddings of '{encoder}'. {how_to_write(encoder)}")
        try:
            folder = local_copy(join(shards, FOLDER))
            people = pq.read_table(folder / "people.parquet", filters=[("split", "=", split)])
            embeddings = np.load(folder / file, mmap_mode="r", allow_pickle=False)
            rows = np.load(folder / "rows.npy", mmap_mode="r", allow_pickle=False)
        except Exception as error:  # a header of numpy is Python's syntax, and can be wrong in many ways
            raise DataError(f"'{shards}' has no bank of people: {error}. Run `idgen prepare` to its end.") from error
        if not len(people):
            raise DataError(f"There are no people in the split '{split}' of '{shards}'.")
        part = _check_bank(shards, people, embeddings, rows)
        self.people: list[str] = people["person"].to_pylist()
        known = "group" in people.column_names and people["group"].type == pa.string()
        self.groups: list[str | None] = people["group"].to_pylist() if known else [None] * len(people)
        self.counts = people["count"].to_numpy()
        self.references = people[REFERENCES if REFERENCES in people.column_names else "count"].to_numpy()
        self.starts = people["start"].to_numpy() - part.start
        # as plain arrays of the same memory: a slice of numpy's memmap takes microseconds
        self.embeddings, self.rows = np.asarray(embeddings)[part], np.asarray(rows)[part]
        if not _reopened:
            check_finite(shards, self.embeddings)
        self.count, self.hard, self.too_similar, self.seed = count, hard, too_similar, seed

    def __len__(self) -> int:
        return len(self.people)

    def __reduce__(self) -> Any:
        """Another process opens the files again instead of receiving their content."""
        return partial(type(self), **self._arguments, _reopened=True), ()

    def person_of(self, faces: np.ndarray) -> np.ndarray:
        """Numbers of the people that faces (numbers of rows) belong to."""
        return np.searchsorted(self.starts, faces, side="right") - 1

    def centre(self, person: int) -> np.ndarray:
        """(dim,), of unit length, from at most 16 of the person's references."""
        start = self.starts[person]
        return unit(unit(self.embeddings[start : start + min(self.references[person], 16)]).sum(0, keepdims=True))[0]

    @cached_property
    def centres(self) -> np.ndarray:
        """(people, dim), float32: the mean direction of each person's references, of unit length. All embeddings of
        the split are read."""
        sums = np.zeros((len(self), self.embeddings.shape[1]))
        for faces in np.array_split(np.arange(len(self.embeddings)), len(self.embeddings) // _BLOCK + 1):
            persons = self.person_of(faces)
            use = faces - self.starts[persons] < self.references[persons]
            np.add.at(sums, persons[use], unit(self.embeddings[faces[use]]))
        return unit(sums)

    def draw(self, persons: torch.Tensor, number: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Draw one reference each of other people; the same number gives the same draw.

        Args:
            persons: (batch,), numbers of the people who must not be drawn.
            number: Number of the draw.

        Returns:
            Embeddings, (count, dim), and the people's numbers, (count,); with `hard` or `too_similar` one list
            per person, (batch, count, dim) and (batch, count). A small set gives fewer than `count`. People who are
            too similar get the number of the person they are drawn for, which losses leave out.
        """
        random = np.random.default_rng((self.seed, number))
        asked = persons.cpu().numpy()
        others = np.setdiff1d(_few_of(random, len(self), self.count * (8 if self.hard else 1) + len(asked)), asked)
        faces = self.starts[others] + random.integers(self.references[others])
        # sorted, so that the file is read forwards
        embeddings = self.embeddings[faces]
        if not self.hard and self.too_similar is None:
            keep = random.permutation(len(others))[: self.count]
            return torch.from_numpy(embeddings[keep]), torch.from_numpy(others[keep])
        cosines = np.stack([self.centre(person) for person in asked]) @ unit(embeddings).T
        numbers = np.tile(others, (len(asked), 1))
        if self.too_similar is not None:
            numbers = np.where(cosines >= self.too_similar, asked[:, None], numbers)
            cosines = np.where(cosines >= self.too_similar, -np.inf, cosines)
        order = (
            np.argsort(-cosines, 1, kind="stable") if self.hard else np.argsort(np.isneginf(cosines), 1, kind="stable")
        )
        order = order[:, : self.count]
        return torch.from_numpy(embeddings[order]), torch.from_numpy(np.take_along_axis(numbers, order, 1))


def how_to_write(encoder: str) -> str:
    """The command that writes the embeddings of another encoder, for messages."""
    return f"Write them with `idgen prepare --output SHARDS --cache embeddings --encoder {encoder}`."


def check_finite(place: str, embeddings: np.ndarray) -> None:
    """Raise DataError if an embedding, (faces, dim), is not finite; reads parts that fit into memory."""
    step = max(1, (1 << 24) // max(1, embeddings.shape[1]))
    for start in range(0, len(embeddings), step):
        bad = ~np.isfinite(embeddings[start : start + step]).all(1)
        if bad.any():
            raise DataError(f"The embedding of face {start + int(bad.argmax())} in '{place}' is not finite.")


def _check_bank(shards: str, people: pa.Table, embeddings: Any, rows: Any) -> slice:
    """The slice of the faces of these people."""
    kinds = {"person": pa.string(), "start": pa.int64(), "count": pa.int64(), REFERENCES: pa.int64()}
    needed = [name for name in kinds if name != REFERENCES or name in people.column_names]
    if any(
        name not in people.column_names or people[name].type != kinds[name] or people[name].null_count
        for name in needed
    ):
        raise DataError(f"The table of people in the bank of '{shards}' is damaged. Run `idgen prepare` again.")
    starts, counts = people["start"].to_numpy(), people["count"].to_numpy()
    whole = isinstance(embeddings, np.ndarray) and isinstance(rows, np.ndarray)
    whole = whole and embeddings.ndim == 2 and embeddings.dtype == np.float32 and embeddings.shape[1] > 0
    whole = whole and rows.shape == (len(embeddings), 2) and np.issubdtype(rows.dtype, np.integer)
    # counts are bounded first: their sum could overflow
    fits = whole and starts[0] >= 0 and ((counts >= 1) & (counts <= len(rows))).all()
    fits = fits and (np.diff(starts) == counts[:-1]).all() and starts[-1] + counts[-1] <= len(rows)
    if REFERENCES in needed:
        references = people[REFERENCES].to_numpy()
        fits = fits and ((references >= 1) & (references <= counts)).all()
    part = slice(int(starts[0]), int(starts[-1] + counts[-1]))
    if not fits or (rows[part] < 0).any():
        raise DataError(f"The files in the bank of '{shards}' do not fit together. Run `idgen prepare` again.")
    return part


def _few_of(random: np.random.Generator, total: int, count: int) -> np.ndarray:
    """Distinct random numbers below `total`, without a list of all numbers."""
    if count >= total:
        return np.arange(total)
    return np.sort(random.choice(total, count, replace=False, shuffle=False))
