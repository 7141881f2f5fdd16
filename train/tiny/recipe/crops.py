"""Stage 3: tight aligned crops, their styled versions, and what can be said of each."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from idgen.faces import ARCFACE_TEMPLATE

from . import config
from .attributes import describe
from .faces import crop_face, load_faces, read_faces, save
from .styles import STYLES


def template(crops: config.Crops, side: int | None = None) -> np.ndarray:
    """Where the five landmarks lie in a crop of `side` pixels (by default the training size): (5, 2)."""
    points = (ARCFACE_TEMPLATE - 56) * crops.zoom + 56 - [0, crops.rise]
    return points * (side or crops.size) / 112


def make_crops(settings: config.Config, folders: dict[str, Path]) -> None:
    """Write the folders `train` and `test`, see `open_crops`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # pictures are so small that handing them to threads costs ten times the work
    cv2.setNumThreads(1)
    faces = load_faces(settings, folders["faces"])
    with np.load(folders["people"] / "people.npz", allow_pickle=False) as arrays:
        person, test = arrays["person"], arrays["test"]
    parts = {"train": np.flatnonzero(~test), "test": np.flatnonzero(test)}
    writers = {name: _Writer(folders["crops"] / name, settings, rows) for name, rows in parts.items()}
    for row, photo, landmarks in tqdm(read_faces(settings, folders["faces"]), total=len(test), desc="crops"):
        writers["test" if test[row] else "train"].add(row, photo.image, landmarks)
    for name, rows in parts.items():
        writers[name].finish(person=person[rows], **{key: faces[key][rows] for key in ("set", "name")})
    torch.set_num_threads(threads)


def open_crops(folder: Path, part: str) -> dict[str, np.ndarray]:
    """The crops of `train` or `test`.

    Returns:
        `images` (n, size, size, 3) uint8, on disk until read, and for each `photo` its row in the faces, `person`,
        `set`, `name` and `attributes` (n, 3) int8 (see `attributes`); of the filters `styled` (m, size, size, 3),
        also on disk, `styled_of` (m,) row of the photo and `styled_as` (m,) style from 1.
    """
    with np.load(folder / part / "table.npz", allow_pickle=False) as arrays:
        table = dict(arrays)
    return {**table, **{key: np.load(folder / part / f"{key}.npy", mmap_mode="r") for key in ("images", "styled")}}


class _Writer:
    """Crops of one part, written as they come."""

    def __init__(self, folder: Path, settings: config.Config, rows: np.ndarray) -> None:
        self.folder, self.crops, self.rows = folder, settings.crops, rows
        folder.mkdir(exist_ok=True)
        each, side, count = self.crops.styled_per_photo, self.crops.size, len(rows)
        self.images, self.styled = (
            np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, (n, side, side, 3))
            for name, n in (("images", count), ("styled", count * each))
        )
        self.styled_as = np.zeros((count, each), np.int8)
        self.attributes: list[np.ndarray] = []
        self.random = np.random.default_rng(settings.seed)

    def add(self, row: int, photo: np.ndarray, landmarks: np.ndarray) -> None:
        i, filters = len(self.attributes), list(STYLES.values())
        assert self.rows[i] == row
        large = crop_face(photo, landmarks, template(self.crops, 2 * self.crops.size), 2 * self.crops.size)
        self.images[i] = shrink(large)
        self.attributes.append(describe(self.images[i], landmarks))
        self.styled_as[i] = 1 + self.random.choice(len(filters), self.crops.styled_per_photo, replace=False)
        for j, style in enumerate(self.styled_as[i], i * self.crops.styled_per_photo):
            self.styled[j] = shrink(filters[style - 1](large))

    def finish(self, **columns: np.ndarray) -> None:
        self.images.flush()
        self.styled.flush()
        save(
            self.folder / "table.npz",
            photo=self.rows,
            attributes=np.array(self.attributes),
            styled_of=np.repeat(np.arange(len(self.rows)), self.crops.styled_per_photo),
            styled_as=self.styled_as.ravel(),
            **columns,
        )


def shrink(image: np.ndarray) -> np.ndarray:
    """Halve the side by averaging."""
    return cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
