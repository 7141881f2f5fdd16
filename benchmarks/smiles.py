"""What the benchmarks of attributes and expressions share: people, pictures of them, and how these are measured."""

from __future__ import annotations

import csv
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from swap import HELD_OUT, Files, fit_smile, mouth, read_files

from idgen import Identity
from idgen.errors import FaceError
from idgen.evaluation.intervals import Interval, mean_interval
from idgen.faces import load_photo, open_encoder
from idgen.faces.opencv import YuNetDetector

BATCH = 12


class Person(NamedTuple):
    """A person to draw.

    Attributes:
        photo: The photo that the person is drawn from.
        identity: The person by that photo.
        truth: Embedding of another photo by the unseen encoder.
    """

    photo: np.ndarray
    identity: Identity
    truth: np.ndarray


class Measured(NamedTuple):
    """What was measured in pictures, one value for each; NaN where no face was found.

    Attributes:
        smiles: Probability of a smile.
        embeddings: (pictures, dim), of unit length, by the unseen encoder.
    """

    smiles: np.ndarray
    embeddings: np.ndarray

    def similarity(self, truths: Sequence[np.ndarray]) -> np.ndarray:
        """Cosines to these embeddings, one for each picture."""
        return (self.embeddings * np.stack(truths)).sum(1)


@dataclass(frozen=True)
class Judge:
    """Measures pictures. The encoder has seen no training; a logistic regression on mouths classifies smiles."""

    detector: YuNetDetector
    encoder: Any
    smile: LogisticRegression

    def __call__(self, pictures: Sequence[np.ndarray]) -> Measured:
        """Measure the largest face of each picture."""
        found = [self._one(picture) for picture in pictures]
        return Measured(np.array([smile for smile, _ in found]), np.stack([embedding for _, embedding in found]))

    def _one(self, picture: np.ndarray) -> tuple[float, np.ndarray]:
        face = max(self.detector.detect(picture), key=lambda each: each.area, default=None)
        if face is None:
            return np.nan, np.full(self.encoder.dim, np.nan)
        embedding = self.encoder.embed(self.encoder.crop(picture, face.landmarks)[None])[0]
        smile = self.smile.predict_proba(mouth(picture, face.landmarks)[None])[0, 1]
        return float(smile), embedding / np.linalg.norm(embedding)


def held_out() -> set[str]:
    """Names of the people whom no training has seen."""
    return {line for line in HELD_OUT.read_text().splitlines() if not line.startswith("#")}


def read_emotions(table: Path) -> dict[str, str]:
    """Name of a photo → emotion, of a table with the columns file and emotion."""
    return {row["file"]: row["emotion"] for row in csv.DictReader(table.open())}


def open_judge(
    yunet: Path, encoder: str, photos: Path, emotions: dict[str, str], labelled: int
) -> tuple[Judge, Files]:
    """The judge, which has learned smiles from photos of people who are not held out, and the photos of those who
    are; prints how often the classifier is right."""
    files, detector = read_files(photos, held_out(), emotions, labelled), YuNetDetector(yunet)
    smile, accuracy = fit_smile(files.labelled, detector)
    print(f"the classifier of smiles is right for {accuracy:.0%} of other photos", flush=True)
    return Judge(detector, open_encoder(encoder), smile), files


def find_people(
    pipe: Any, judge: Judge, photos: dict[str, list[bytes]], count: int, accept: Callable[[float], bool]
) -> list[Person]:
    """People with two photos in which faces are found, who look as `accept` says of the smile in the first one."""
    chosen: list[Person] = []
    for name in sorted(photos):
        if len(chosen) == count or len(photos[name]) < 2:
            continue
        pair = [load_photo(data) for data in photos[name][:2]]
        found = judge(pair)
        if np.isfinite(found.smiles).all() and accept(float(found.smiles[0])):
            try:
                identity = pipe.encode_identity(pair[0], face="largest")
            except FaceError:  # the default detector does not find the face
                continue
            chosen.append(Person(pair[0], identity, found.embeddings[1]))
    return chosen


def draw(pipe: Any, each: Sequence[dict[str, Any]], steps: int, prompt: str = "a photo of <id>") -> list[np.ndarray]:
    """A picture for each of these arguments of a call, the n-th always from the same noise."""
    pictures = []
    for start in range(0, len(each), BATCH):
        part = each[start : start + BATCH]
        together = {name: [arguments[name] for arguments in part] for name in part[0]}
        scale = {name: together.pop(name)[0] for name in list(together) if name.endswith("_scale")}
        pictures += pipe(
            [prompt] * len(part),
            **together,
            **scale,
            num_inference_steps=steps,
            guidance_scale=3.0,
            generator=[torch.Generator().manual_seed(start + i) for i in range(len(part))],
        ).images
    return [np.asarray(picture) for picture in pictures]


def cell(values: np.ndarray | Interval, form: str = ".3f") -> str:
    """A mean over people, or another statistic, with its interval."""
    found = mean_interval(values, np.arange(len(values))) if isinstance(values, np.ndarray) else values
    return f"{found.value:{form}} ({found.low:{form}} … {found.high:{form}})"
