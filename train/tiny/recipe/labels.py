"""Stage 4: words for age, sex, smile and sharpness, from tables and from classifiers that held-out photos prove."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from . import config
from .attributes import COLUMN
from .crops import open_crops
from .faces import load_faces, save

YOUNG, OLD = 30, 60
"""Years: below the one and from the other on, age is said."""
TRUSTED = 0.9
"""A classifier speaks of those of which it is so sure, and only if as many of its words on held-out ones are right."""
SOFT, CRISP = 0.0, 0.0

Part = dict[str, np.ndarray]


@dataclass(frozen=True)
class Attribute:
    """What is said of a part of the photos, and from what the rest can be told.

    Args:
        said: (n,) for each part, 0 where nothing is known.
        features: (n, dim) for each part.
    """

    said: dict[str, np.ndarray]
    features: dict[str, np.ndarray]


def make_labels(settings: config.Config, folders: dict[str, Path]) -> None:
    """Write `train.npz` and `test.npz` with `attributes` (n, 7), row for row as in the crops, and `proof.json`: of
    each classifier how many held-out photos with a label it speaks of, and how often it is right."""
    parts = {part: open_crops(folders["crops"], part) for part in ("train", "test")}
    faces = load_faces(settings, folders["faces"])
    attributes = {part: data["attributes"].copy() for part, data in parts.items()}
    proof = {}
    for name, attribute in _attributes(settings, parts, faces):
        found, proof[name] = tell(attribute)
        for part, values in found.items():
            attributes[part][:, COLUMN[name]] = values
    for part, data in parts.items():
        attributes[part][:, COLUMN["quality"]] = quality(data["images"])
        save(folders["labels"] / f"{part}.npz", attributes=attributes[part])
    (folders["labels"] / "proof.json").write_text(json.dumps(proof, indent=2) + "\n")


def open_labels(folder: Path, part: str) -> np.ndarray:
    """Attributes (n, 7) of the crops of `train` or `test`."""
    with np.load(folder / f"{part}.npz", allow_pickle=False) as arrays:
        return arrays["attributes"]


def tell(attribute: Attribute) -> tuple[dict[str, np.ndarray], dict[str, float]]:
    """Labels of all photos: those of the tables, and where there are none, what a classifier is sure of.

    Returns:
        (n,) for each part, 0 where nothing can be said; and what held-out photos say of the classifier.
    """
    known = {part: labels > 0 for part, labels in attribute.said.items()}
    if len(np.unique(attribute.said["train"][known["train"]])) < 2 or not known["test"].any():
        return attribute.said, {}
    net = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500))
    net.fit(attribute.features["train"][known["train"]], attribute.said["train"][known["train"]])
    told = {part: _sure(net, features) for part, features in attribute.features.items()}
    spoken = known["test"] & (told["test"] > 0)
    right = float((told["test"] == attribute.said["test"])[spoken].mean()) if spoken.any() else 0.0
    proof = {
        "photos": int(known["test"].sum()),
        "spoken of": float(spoken.sum() / known["test"].sum()),
        "right": right,
    }
    if right < TRUSTED:
        return attribute.said, proof
    return {part: np.where(known[part], said, told[part]) for part, said in attribute.said.items()}, proof


def quality(images: np.ndarray) -> np.ndarray:
    """(n,): 1 blurred, 2 sharp, 0 between, of (n, side, side, 3) uint8."""
    values = np.array([sharpness(image) for image in images])
    return np.where(values < SOFT, 1, np.where(values > CRISP, 2, 0)).astype(np.int8)


def sharpness(image: np.ndarray) -> float:
    """Deviation of what a blur of one pixel takes away, relative to that of the picture, in the middle of a crop."""
    side = len(image)
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype(np.float32)
    fine = (grey - cv2.GaussianBlur(grey, (0, 0), side / 128))[side // 4 : -side // 8, side // 4 : -side // 4]
    return float(fine.std() / max(1.0, grey[side // 4 : -side // 8, side // 4 : -side // 4].std()))


def _attributes(settings: config.Config, parts: dict[str, Part], faces: Part) -> Iterator[tuple[str, Attribute]]:
    embeds = {part: faces["embeds"][data["photo"]] for part, data in parts.items()}
    age = {part: faces["age"][data["photo"]] for part, data in parts.items()}
    sex = {part: faces["sex"][data["photo"]] for part, data in parts.items()}
    smiles = _smiles(settings.paths.data / "lfw_expressions.csv")
    said = {part: np.array([smiles.get(Path(n).name, 0) for n in data["name"]]) for part, data in parts.items()}
    yield "sex", Attribute({part: _code(s == "M", s == "F") for part, s in sex.items()}, embeds)
    yield "age", Attribute({part: _code(years < YOUNG, years >= OLD) for part, years in age.items()}, embeds)
    yield (
        "smile",
        Attribute(said, {part: np.stack([mouth(i) for i in data["images"]]) for part, data in parts.items()}),
    )


def mouth(image: np.ndarray) -> np.ndarray:
    """Grey values of the lower half of the face, at 24 x 18, of mean 0 and deviation 1."""
    side = len(image)
    part = image[round(0.56 * side) : round(0.83 * side), round(0.32 * side) : round(0.68 * side)]
    grey = cv2.cvtColor(np.ascontiguousarray(part), cv2.COLOR_RGB2GRAY)
    small = cv2.resize(grey, (24, 18), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    return (small - small.mean()) / max(1.0, float(small.std()))


def _smiles(file: Path) -> dict[str, int]:
    if not file.exists():
        return {}
    words = {"neutral": 1, "happiness": 2}
    with file.open(newline="", encoding="utf-8") as text:
        return {row["file"]: words[row["emotion"]] for row in csv.DictReader(text) if row["emotion"] in words}


def _code(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    return np.where(first, 1, np.where(second, 2, 0)).astype(np.int8)


def _sure(net: LogisticRegression, features: np.ndarray) -> np.ndarray:
    chances = net.predict_proba(features)
    return np.where(chances.max(1) > TRUSTED, net.classes_[chances.argmax(1)], 0).astype(np.int8)
