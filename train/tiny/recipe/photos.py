"""The sets of photos, each read in its own layout and yielded in one form."""

from __future__ import annotations

import csv
import tarfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cached_property
from io import TextIOWrapper
from pathlib import Path

import numpy as np

from idgen.faces import load_photo


@dataclass(frozen=True)
class Photo:
    """One photo and what its set's table says of it.

    Args:
        person: Name of the person, unique over all sets.
        file: Name of the file, unique within the set.
        data: The bytes of the file.
        landmarks: (5, 2) in pixels of `image`; None where the set has no table of them.
        age: Years; NaN if unknown.
        sex: "F", "M" or "".
    """

    person: str
    file: str
    data: bytes
    landmarks: np.ndarray | None = None
    age: float = float("nan")
    sex: str = ""

    @cached_property
    def image(self) -> np.ndarray:
        """(height, width, 3) uint8, RGB."""
        return load_photo(self.data)


def read_set(name: str, folder: Path) -> Iterator[Photo]:
    """All photos of one of `SETS` in the order of its tars.

    Raises:
        FileNotFoundError: There are no tars in `folder / name`.
    """
    yield from SETS[name](folder / name)


def _lfw(folder: Path) -> Iterator[Photo]:
    """Tars of `Name/Name_0001.jpg`."""
    for file, data in _files(folder):
        yield Photo(file.rpartition("/")[0], file, data)


def _officials(folder: Path) -> Iterator[Photo]:
    table = _table(folder / "officials.csv", "file")
    for file, data in _files(folder):
        row = table[file]
        sex = {"male": "M", "female": "F"}.get(row["gender"], "")
        yield Photo(f"officials-{row['person']}", file, data, _landmarks(row), sex=sex)


def _aaf(folder: Path) -> Iterator[Photo]:
    table = _table(folder / "aaf.csv", "file")
    for file, data in _files(folder):
        row = table[file]
        yield Photo(f"aaf-{Path(file).stem}", file, data, _landmarks(row), float(row["age"]), row["sex"])


def _canada(folder: Path) -> Iterator[Photo]:
    table, people = _table(folder / "canada.csv", "file"), _table(folder / "info.csv", "face_id")
    for file, data in _files(folder):
        person = "lisa" if file.startswith("lisa/") else file.split("/")[1]
        row = people.get(person, {"face_age": "nan", "face_gender": ""})
        sex = row["face_gender"][:1].upper()
        yield Photo(f"canada-{person}", file, data, _landmarks(table[file]), float(row["face_age"]), sex)


SETS: dict[str, Callable[[Path], Iterator[Photo]]] = {
    "lfw": _lfw,
    "officials": _officials,
    "aaf": _aaf,
    "canada": _canada,
}
"""Name of a folder of photos → its reader."""


def _files(folder: Path) -> Iterator[tuple[str, bytes]]:
    tars = sorted(folder.glob("*.tar"))
    if not tars:
        raise FileNotFoundError(f"There are no tars of photos in '{folder}'; set IDGEN_SHARED or paths.data.")
    for path in tars:
        with tarfile.open(path) as tar:
            for member in tar:
                if member.isfile() and (data := tar.extractfile(member)):
                    yield member.name, data.read()


def _table(file: Path, key: str) -> dict[str, dict[str, str]]:
    with TextIOWrapper(file.open("rb"), encoding="utf-8", newline="") as text:
        return {row[key]: row for row in csv.DictReader(text)}


def _landmarks(row: dict[str, str]) -> np.ndarray:
    return np.array([[float(row[f"{point}_{axis}"]) for axis in "xy"] for point in ("re", "le", "n", "rm", "lm")])
