"""Stage `people`: which names are one person over all sets, and which people are held out of all trainings."""

from __future__ import annotations

import csv
import hashlib
from pathlib import Path

import numpy as np
from scipy.sparse import coo_matrix
from scipy.sparse.csgraph import connected_components

from . import config
from .faces import load_faces, save


def held_out(name: str, photos: int) -> bool:
    """Whether the hash of a name holds this person out: 20 % of people with 2 to 10 photos, on whom identity is
    measured, and 6 % of people with one. People with more are never held out, since that would lose many photos."""
    percent = 6 if photos == 1 else 20 if photos <= 10 else 0
    return int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % 100 < percent


def test_people(file: Path) -> frozenset[str]:
    """Names in a split file: its lines that are not comments."""
    return frozenset(line for line in file.read_text().splitlines() if line and not line.startswith("#"))


def find_people(settings: config.Config, faces: Path, folder: Path) -> None:
    """Write `people.npz`, row for row as in the faces: `person` (n,), the name of a person over all sets, and `test`
    (n,), whether the person is held out; and `merged.csv`, the names that are one person.

    Two names are one person if the sets say so or if their embeddings are nearer than `people` says. A person is held
    out if one of their names is: LFW's by the split file, others by the hash.
    """
    rows = load_faces(settings, faces)
    names, index, counts = np.unique(rows["person"], return_inverse=True, return_counts=True)
    number = {name: i for i, name in enumerate(names)}
    pairs = [(number[a], number[b]) for a, b in known_pairs(settings) if a in number and b in number]
    pairs += close_pairs(rows["embeds"], index, *_limits(settings, rows["set"]))
    of_lfw, listed = set(rows["person"][rows["set"] == "lfw"]), test_people(settings.path("test_people"))
    test = np.array([n in listed if n in of_lfw else held_out(n, int(c)) for n, c in zip(names, counts, strict=True)])
    group, test = group_names(len(names), pairs, test)
    one_name = names[np.unique(group, return_index=True)[1]][group]
    save(folder / "people.npz", person=one_name[index], test=test[index])
    with (folder / "merged.csv").open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([one, name] for one, name in zip(one_name, names, strict=True) if one != name)


def group_names(count: int, pairs: list[tuple[int, int]], test: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The number of each name's person, (count,), where `pairs` are one person; and whether any of a person's names is
    held out, (count,)."""
    links = np.array(pairs, int).reshape(-1, 2).T
    group = connected_components(coo_matrix((np.ones(links.shape[1]), tuple(links)), (count, count)), directed=False)[
        1
    ]
    return group, np.bincount(group, test)[group] > 0


def known_pairs(settings: config.Config) -> list[tuple[str, str]]:
    """Names of one person in two sets, by the sets' own tables."""
    if "officials" not in settings.sets:
        return []
    table = settings.path("data") / "officials" / "also_in_lfw.csv"
    with table.open(newline="", encoding="utf-8") as file:
        return [(f"officials-{row['person']}", row["lfw_folder"]) for row in csv.DictReader(file)]


def close_pairs(embeds: np.ndarray, person: np.ndarray, limits: np.ndarray, kind: np.ndarray) -> list[tuple[int, int]]:
    """Pairs of different people, (smaller number, larger), of whom two photos are near.

    Args:
        embeds: (photos, dim).
        person: (photos,), numbers of people.
        limits: (kinds, kinds), symmetric, the distance below which photos of these kinds are near.
        kind: (photos,), the kind of each photo.
    """
    found = set()
    squares = np.square(embeds).sum(1)
    for start in range(0, len(embeds), 1024):
        part = slice(start, start + 1024)
        distances = squares[part, None] + squares[None] - 2 * embeds[part] @ embeds.T
        for i, j in np.argwhere(distances < limits[kind[part]][:, kind] ** 2):
            a, b = person[start + i], person[j]
            if a < b:
                found.add((int(a), int(b)))
    return sorted(found)


def _limits(settings: config.Config, sets: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances between sets, and the number of each photo's set."""
    number = {name: i for i, name in enumerate(settings.sets)}
    limits = np.full((len(number), len(number)), settings.people.same)
    for pair, distance in settings.people.between.items():
        one, other = pair.split("-")
        limits[number[one], number[other]] = limits[number[other], number[one]] = distance
    return limits, np.array([number[name] for name in sets])
