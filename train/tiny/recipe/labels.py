"""Stage `labels`: words for age, sex, smile and sharpness, from tables and from classifiers."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
from skimage.feature import hog
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import StandardScaler

from . import config
from .attributes import COLUMN
from .crops import open_crops
from .faces import load_faces, save

YOUNG, OLD = 30, 60
"""Ages in years: below the first one a person is called young, from the second one on old."""
SURE, TRUSTED, COVERED = 0.9, 0.9, 0.5
"""Least confidence of a label that a classifier gives; least share of correct labels, and of photos that get one, on
held-out people. A classifier below one of the last two is not used."""
SOFT, CRISP = 0.105, 0.16
"""Values of `sharpness`: below the first one photos are blurred (three in ten), above the second one sharp (one in
six)."""

NEITHER = 3
"""Label of photos for which neither word is right; a classifier learns it beside the two words."""

Part = dict[str, np.ndarray]


@dataclass(frozen=True)
class Attribute:
    """Labels of some of the photos, and features from which the others are classified.

    Args:
        said: (n,) for each part: 0 for no label, 1 or 2 for a word, or `NEITHER`.
        features: (n, dim) for each part.
    """

    said: dict[str, np.ndarray]
    features: dict[str, np.ndarray]


def make_labels(settings: config.Config, folders: Mapping[str, Path]) -> None:
    """Write `train.npz` and `test.npz` with `attributes` (n, 7), row for row as in the crops, and `proof.json`: for
    each classifier the share of held-out photos that get a label, and of correct labels."""
    parts = {part: open_crops(folders["crops"], part) for part in ("train", "test")}
    faces = load_faces(settings, folders["faces"])
    attributes = {part: data["attributes"].copy() for part, data in parts.items()}
    proof = {}
    for name, attribute in labelled(settings, parts, faces):
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
    """Labels of all photos: those of the tables, or of a classifier where it is confident.

    If the classifier is not good enough, no photo has a label: a word that only one set has would mean that set.

    Returns:
        (n,) for each part, 0 for no label; and the results of the classifier on held-out photos.
    """
    known = {part: labels > 0 for part, labels in attribute.said.items()}
    words = {part: np.where(labels == NEITHER, 0, labels) for part, labels in attribute.said.items()}
    nothing = {part: np.zeros_like(labels) for part, labels in words.items()}
    if len(np.unique(attribute.said["train"][known["train"]])) < 2 or not known["test"].any():
        return nothing, {}
    net = fit(attribute.features["train"][known["train"]], attribute.said["train"][known["train"]])
    told = {part: sure(net, features) for part, features in attribute.features.items()}
    spoken = known["test"] & (told["test"] > 0)
    right = float((told["test"] == attribute.said["test"])[spoken].mean()) if spoken.any() else 0.0
    covered = float(spoken.sum() / max(1, (words["test"] > 0).sum()))
    proof = {"photos": int(known["test"].sum()), "spoken of": covered, "right": right}
    if right < TRUSTED or covered < COVERED:
        return nothing, proof
    return {part: np.where(known[part], said, told[part]) for part, said in words.items()}, proof


def fit(features: np.ndarray, labels: np.ndarray) -> Pipeline:
    """A logistic regression of labels (n,) on features (n, dim)."""
    return make_pipeline(StandardScaler(), LogisticRegression(C=0.001, max_iter=500)).fit(features, labels)


def quality(images: np.ndarray) -> np.ndarray:
    """(n, side, side, 3) uint8 -> (n,): 1 blurred, 2 sharp, 0 between."""
    values = np.array([sharpness(image) for image in images])
    return np.where(values < SOFT, 1, np.where(values > CRISP, 2, 0)).astype(np.int8)


def sharpness(image: np.ndarray) -> float:
    """Standard deviation of what a blur of one pixel removes, relative to the picture's, in the middle of a crop."""
    side = len(image)
    grey = cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY).astype(np.float32)
    fine = (grey - cv2.GaussianBlur(grey, (0, 0), side / 128))[side // 4 : -side // 8, side // 4 : -side // 4]
    return float(fine.std() / max(1.0, grey[side // 4 : -side // 8, side // 4 : -side // 4].std()))


def labelled(settings: config.Config, parts: dict[str, Part], faces: Part) -> Iterator[tuple[str, Attribute]]:
    """Attributes that a classifier tells, with the labels and features of the photos of `train` and `test`."""
    embeds = {part: faces["embeds"][data["photo"]] for part, data in parts.items()}
    age = {part: faces["age"][data["photo"]] for part, data in parts.items()}
    sex = {part: faces["sex"][data["photo"]] for part, data in parts.items()}
    smiles = _smiles(settings.path("data") / "lfw_expressions.csv")
    said = {part: np.array([smiles.get(Path(n).name, 0) for n in data["name"]]) for part, data in parts.items()}
    yield "sex", Attribute({part: _code(s == "M", s == "F") for part, s in sex.items()}, embeds)
    yield "age", Attribute({part: _code(y < YOUNG, y >= OLD, np.isfinite(y)) for part, y in age.items()}, embeds)
    yield (
        "smile",
        Attribute(said, {part: np.stack([mouth(i) for i in data["images"]]) for part, data in parts.items()}),
    )


def mouth(image: np.ndarray) -> np.ndarray:
    """Features of the lower half of a face: grey values at 24 x 18 of mean 0 and deviation 1, and histograms of
    gradients (Dalal & Triggs 2005) at 48 x 32."""
    side, grey = len(image), cv2.cvtColor(np.ascontiguousarray(image), cv2.COLOR_RGB2GRAY)
    near = grey[round(0.56 * side) : round(0.83 * side), round(0.32 * side) : round(0.68 * side)]
    wide = grey[round(0.5 * side) : round(0.86 * side), round(0.27 * side) : round(0.73 * side)]
    small = cv2.resize(near, (24, 18), interpolation=cv2.INTER_AREA).astype(np.float32).ravel()
    gradients = hog(cv2.resize(wide, (48, 32), interpolation=cv2.INTER_AREA), 9, (8, 8), (2, 2)).astype(np.float32)
    return np.concatenate([(small - small.mean()) / max(1.0, float(small.std())), gradients])


def _smiles(file: Path) -> dict[str, int]:
    if not file.exists():
        return {}
    words = {"neutral": 1, "happiness": 2}
    with file.open(newline="", encoding="utf-8") as text:
        return {row["file"]: words[row["emotion"]] for row in csv.DictReader(text) if row["emotion"] in words}


def _code(first: np.ndarray, second: np.ndarray, neither: np.ndarray | bool = False) -> np.ndarray:
    return np.where(first, 1, np.where(second, 2, np.where(neither, NEITHER, 0))).astype(np.int8)


def sure(net: Pipeline, features: np.ndarray) -> np.ndarray:
    """(n,): 1 or 2 where the classifier is confident of a word, else 0."""
    chances = net.predict_proba(features)
    best = net.classes_[chances.argmax(1)]
    return np.where((chances.max(1) > SURE) & (best != NEITHER), best, 0).astype(np.int8)
