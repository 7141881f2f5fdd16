"""Stage 1: tight aligned crops, their styled versions, and what can be said of each."""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import torch
from tqdm import tqdm

from idgen.faces import ARCFACE_TEMPLATE, Detection, align_face
from idgen.faces.opencv import YuNetDetector

from . import config
from .attributes import describe
from .photos import read_photos, test_people
from .styles import STYLES

BORDER = 75
"""Pixels mirrored around each photo, so that no crop has black corners."""


def template(crops: config.Crops, side: int | None = None) -> np.ndarray:
    """Where the five landmarks lie in a crop of `side` pixels (by default the training size): (5, 2)."""
    points = (ARCFACE_TEMPLATE - 56) * crops.zoom + 56 - [0, crops.rise]
    return points * (side or crops.size) / 112


def make_crops(settings: config.Config, folder: Path) -> None:
    """Write `train.npz` and `test.npz`.

    Each holds `images` (n, size, size, 3) uint8, `person`, `name`, `attributes` (n, 3) int8 (see `attributes`), and
    of the filters `styled` (m, size, size, 3), `styled_of` (m,) index of the photo and `styled_as` (m,) style from 1.
    """
    cv2.setNumThreads(1)  # pictures are so small that handing them to threads costs ten times the work
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    detector = YuNetDetector(settings.paths.yunet)
    unseen = test_people(settings.paths.test_people)
    sets: dict[str, dict[str, list]] = {"train": {}, "test": {}}
    random = np.random.default_rng(settings.seed)
    for person, file, photo in tqdm(read_photos(settings.paths.photos), desc="crops", mininterval=10):
        face = central_face(detector.detect(photo), photo.shape)
        if face is not None:
            rows = _rows(photo, face, settings.crops, random)
            _append(sets["test" if person in unseen else "train"], person=[person], name=[file], **rows)
    for name, columns in sets.items():
        if not columns:
            continue
        counts = np.array(columns.pop("count"))
        arrays = {key: np.stack(values) for key, values in columns.items()}
        arrays["styled_of"] = np.repeat(np.arange(len(counts)), counts)
        temporary = folder / f"{name}.tmp.npz"
        np.savez(temporary, allow_pickle=False, **arrays)
        temporary.replace(folder / f"{name}.npz")
    torch.set_num_threads(threads)


def central_face(faces: list[Detection], shape: tuple[int, ...]) -> Detection | None:
    """The face nearest to the middle: the photos of LFW are cut around the person they name."""
    middle = np.array([shape[1], shape[0]]) / 2
    return min(faces, key=lambda f: np.linalg.norm(f.landmarks.mean(0) - middle), default=None)


def crop_face(photo: np.ndarray, landmarks: np.ndarray, crops: config.Crops, side: int) -> np.ndarray:
    """One aligned crop of `side` pixels, (side, side, 3) uint8; the photo is mirrored beyond its border."""
    wide = cv2.copyMakeBorder(photo, BORDER, BORDER, BORDER, BORDER, cv2.BORDER_REFLECT_101)
    return align_face(wide, landmarks + BORDER, template(crops, side), side)


def _rows(photo: np.ndarray, face: Detection, crops: config.Crops, random: np.random.Generator) -> dict[str, list]:
    large = crop_face(photo, face.landmarks, crops, 2 * crops.size)
    image = shrink(large)
    chosen = random.choice(len(STYLES), crops.styled_per_photo, replace=False)
    filters = list(STYLES.values())
    return {
        "images": [image],
        "attributes": [describe(image, face.landmarks)],
        "styled": [shrink(filters[i](large)) for i in chosen],
        "styled_as": [np.int8(i + 1) for i in chosen],
        "count": [len(chosen)],
    }


def shrink(image: np.ndarray) -> np.ndarray:
    """Halve the side by averaging."""
    return cv2.resize(image, None, fx=0.5, fy=0.5, interpolation=cv2.INTER_AREA)


def _append(columns: dict[str, list], **rows: list) -> None:
    for key, values in rows.items():
        columns.setdefault(key, []).extend(values)
