"""Stage `faces`: landmarks and embedding of every photo."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
from tqdm import tqdm

from idgen.faces import DlibEncoder
from idgen.faces.opencv import YuNetDetector

from . import config
from .photos import Photo, read_set

BORDER = 75
"""Pixels that are mirrored around each photo, so that no crop has black corners."""
CHUNK = 64


def find_faces(settings: config.Config, folder: Path) -> None:
    """Write one `<set>.npz` for each set, with a row for each photo in which a face is found.

    It holds `person`, `name` of the file, `landmarks` (n, 5, 2), `age` and `sex`, as in `Photo`, and `embeds` (n, 128)
    by the default encoder, not normalised.
    """
    cv2.setNumThreads(1)  # pictures are so small that handing them to threads costs ten times the work
    detector, encoder = YuNetDetector(settings.path("yunet")), DlibEncoder()
    for name in settings.sets:
        if (folder / f"{name}.npz").exists():
            continue
        rows, chips, embeds = [], [], []
        for photo in tqdm(read_set(name, settings.path("data")), desc=name, mininterval=10):
            if (points := landmarks_of(photo, detector)) is None:
                continue
            rows.append((photo.person, photo.file, points, photo.age, photo.sex))
            chips.append(encoder.crop(photo.image, points))
            if len(chips) == CHUNK:
                embeds.append(encoder.embed(np.stack(chips)))
                chips.clear()
        embeds += [encoder.embed(np.stack(chips))] if chips else []
        columns = ("person", "name", "landmarks", "age", "sex")
        table = {key: np.array(values) for key, values in zip(columns, zip(*rows, strict=True), strict=True)}
        save(folder / f"{name}.npz", **table, embeds=np.concatenate(embeds))


def landmarks_of(photo: Photo, detector: YuNetDetector) -> np.ndarray | None:
    """(5, 2) of the set's table, or of the detected face nearest to the middle: LFW's photos are cut around the person
    they name."""
    if photo.landmarks is not None:
        return photo.landmarks
    middle = np.array(photo.image.shape[1::-1]) / 2
    found = [face.landmarks for face in detector.detect(photo.image)]
    return min(found, key=lambda points: np.linalg.norm(points.mean(0) - middle), default=None)


def load_faces(settings: config.Config, folder: Path) -> dict[str, np.ndarray]:
    """The tables of all sets, one below the other, with a column `set`."""
    tables = []
    for name in settings.sets:
        with np.load(folder / f"{name}.npz", allow_pickle=False) as arrays:
            tables.append({**arrays, "set": np.full(len(arrays["name"]), name)})
    return {key: np.concatenate([table[key] for table in tables]) for key in tables[0]}


def read_faces(settings: config.Config, folder: Path) -> Iterator[tuple[int, Photo, np.ndarray]]:
    """Row in `load_faces`, photo and landmarks of every face, in that order."""
    faces = load_faces(settings, folder)
    row_of = {key: row for row, key in enumerate(zip(faces["set"], faces["name"], strict=True))}
    for name in settings.sets:
        for photo in read_set(name, settings.path("data")):
            if (row := row_of.get((name, photo.file))) is not None:
                yield row, photo, faces["landmarks"][row]


def save(path: Path, /, **arrays: np.ndarray) -> None:
    """Write an npz file whole or not at all."""
    temporary = path.with_suffix(".tmp.npz")
    np.savez(temporary, allow_pickle=False, **arrays)
    temporary.replace(path)
