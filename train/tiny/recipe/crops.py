"""Stage `crops`: tight aligned crops, their styled versions, and the attributes that are measured on them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from idgen.faces import align_face

from . import config
from .attributes import describe
from .faces import BORDER, load_faces, read_faces, save
from .styles import STYLES


def make_crops(settings: config.Config, folders: Mapping[str, Path]) -> None:
    """Write the folders `train` and `test`, see `open_crops`."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # pictures are so small that handing them to threads costs ten times the work
    cv2.setNumThreads(1)
    faces = load_faces(settings, folders["faces"])
    with np.load(folders["people"] / "people.npz", allow_pickle=False) as arrays:
        person, test = arrays["person"], arrays["test"]
    rows = {"train": np.flatnonzero(~test), "test": np.flatnonzero(test)}
    parts = {name: Part(folders["crops"] / name, settings, len(rows[name])) for name in rows}
    attributes: dict[str, list[np.ndarray]] = {name: [] for name in rows}
    points, side = 2 * settings.crops.template, 2 * settings.crops.size
    for row, photo, landmarks in tqdm(read_faces(settings, folders["faces"]), total=len(test), mininterval=10):
        name = "test" if test[row] else "train"
        large = align_face(photo.image, landmarks, points, side, mirrored=BORDER)
        image = parts[name].write(len(attributes[name]), large)
        attributes[name].append(describe(image, landmarks))
    for name, part in parts.items():
        columns = {key: faces[key][rows[name]] for key in ("set", "name")}
        part.finish(photo=rows[name], person=person[rows[name]], attributes=np.array(attributes[name]), **columns)
    torch.set_num_threads(threads)


def open_crops(folder: Path, part: str) -> dict[str, np.ndarray]:
    """The crops of `train` or `test`.

    Returns:
        `images` (n, size, size, 3) uint8, on disk until read, and for each `photo` its row in the faces, `person`,
        `set`, `name` and `attributes` (n, 7) int8 (see `attributes`); of the filters `styled` (m, size, size, 3),
        also on disk, `styled_of` (m,) row of the photo and `styled_as` (m,) style from 1.
    """
    with np.load(folder / part / "table.npz", allow_pickle=False) as arrays:
        table = dict(arrays)
    return {**table, **{key: np.load(folder / part / f"{key}.npy", mmap_mode="c") for key in ("images", "styled")}}


class Part:
    """Crops of one part on their way to disk; see `open_crops`."""

    def __init__(self, folder: Path, settings: config.Config, count: int) -> None:
        self.folder, self.seed, self.each = folder, settings.seed, settings.crops.styled_per_photo
        folder.mkdir(parents=True, exist_ok=True)
        side = settings.crops.size
        self.images, self.styled = (
            np.lib.format.open_memmap(folder / f"{name}.npy", "w+", np.uint8, (n, side, side, 3))
            for name, n in (("images", count), ("styled", count * self.each))
        )
        self.styled_as = np.zeros((count, self.each), np.int8)

    def write(self, row: int, large: np.ndarray) -> np.ndarray:
        """Write a crop of twice the size and its styled versions; which styles follows from seed and row.

        Returns:
            The crop, (size, size, 3).
        """
        filters = list(STYLES.values())
        self.images[row] = shrink(large)
        chosen = np.random.default_rng([self.seed, row]).choice(len(filters), self.each, replace=False)
        for j, style in enumerate(chosen, row * self.each):
            self.styled[j] = shrink(filters[style](large))
        self.styled_as[row] = 1 + chosen
        return self.images[row]

    def finish(self, **columns: np.ndarray) -> None:
        """Write the table, with these columns of the photos."""
        self.images.flush()
        self.styled.flush()
        of = np.repeat(np.arange(len(self.images)), self.each)
        save(self.folder / "table.npz", styled_of=of, styled_as=self.styled_as.ravel(), **columns)


def shrink(image: np.ndarray) -> np.ndarray:
    """Halve the side by averaging."""
    return cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)
