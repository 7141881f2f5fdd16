"""Whether pictures follow a move of a person along age or sex, by estimators that know nothing of the directions.

    python benchmarks/age_and_sex.py lfw/ faces.tar faces.csv --yunet yunet.onnx --encoder imagenet:mobilefacenet.onnx

Age and sex are estimated from the embeddings of an encoder that no training has seen, by regressions on labelled
photos. The people are those of `train/splits/lfw_test.txt`.
"""

from __future__ import annotations

import csv
import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro
from sklearn.linear_model import LogisticRegression, Ridge
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from smiles import cell, draw, held_out
from swap import read_files
from told_apart import embedding

from idgen import Identity, load_tiny
from idgen.errors import FaceError
from idgen.faces import FaceAnalyzer, load_photo, open_encoder
from idgen.faces.opencv import YuNetDetector

POINTS = ("re", "le", "n", "rm", "lm")
"""Columns of the landmarks: eyes, nose, corners of the mouth, each with _x and _y."""


class Estimators(NamedTuple):
    """Regressions from embeddings of unit length: years, and whether people would label a man."""

    age: Any
    sex: Any


def main(
    photos: tyro.conf.Positional[Path],
    labelled: tyro.conf.Positional[Path],
    table: tyro.conf.Positional[Path],
    /,
    yunet: Path,
    encoder: str,
    amounts: tuple[float, ...] = (-1, 0, 1),
    adapters: tuple[str, ...] = (),
    people: int = 40,
    count: int = 3000,
    steps: int = 8,
) -> None:
    """Print the estimators' errors on other photos, and the table.

    Args:
        photos: Folder with LFW's tar files.
        labelled: Tar file of photos with one face each.
        table: CSV with the columns file, age, sex ("F" or "M") and the landmarks of these photos.
        yunet: YuNet, which finds the faces that are measured.
        encoder: Unseen face encoder, as `open_encoder` opens it.
        amounts: How far people are moved, in steps.
        adapters: Folders of adapters for the built-in model that draw "a man" and "a woman" of each person; "tiny" is
            its own.
        people: Number of people.
        count: Number of labelled photos, evenly chosen.
        steps: Denoising steps.
    """
    analyzer = FaceAnalyzer(YuNetDetector(yunet), open_encoder(encoder))
    estimators = fit(analyzer.encoder, labelled, table, count)
    pipe: Any = load_tiny()
    pipe.set_progress_bar_config(disable=True)
    persons = find(pipe, analyzer, read_files(photos, held_out(), {}, 0).people, people)
    truths = np.stack([truth for _, truth in persons])
    print(f"{len(persons)} people\n| drawn | estimated age | estimated men | similarity |\n| --- | --- | --- | --- |")
    for name in ("age", "sex"):
        for amount in amounts:
            moved = [{"id_embeds": person.moved(name, amount)} for person, _ in persons]
            cells = measure(analyzer, estimators, draw(pipe, moved, steps), truths)
            print(f"| {name} {amount:+g} | {cells} |", flush=True)
    for adapter in adapters:
        pipe.load_id_adapter(adapter)
        for word in ("man", "woman"):
            pictures = draw(pipe, [{"id_embeds": person} for person, _ in persons], steps, f"a photo of a {word}")
            cells = measure(analyzer, estimators, pictures, truths)
            print(f'| {Path(adapter).name}, "{word}" | {cells} |', flush=True)


def measure(analyzer: FaceAnalyzer, estimators: Estimators, pictures: list[np.ndarray], truths: np.ndarray) -> str:
    """Cells of the table: estimated age and share of men, and similarity to the embeddings `truths`."""
    found = np.stack([embedding(analyzer, picture) for picture in pictures])
    seen = np.isfinite(found).all(1)
    age, sex = (np.full(len(found), np.nan) for _ in range(2))
    age[seen], sex[seen] = estimators.age.predict(found[seen]), estimators.sex.predict(found[seen])
    return " | ".join([cell(age, ".1f"), cell(sex, ".0%"), cell((found * truths).sum(1))])


def fit(encoder: Any, labelled: Path, table: Path, count: int) -> Estimators:
    """The estimators; prints their errors on a fifth of the photos, which they were not fitted to."""
    with table.open(newline="") as opened:
        rows = list(csv.DictReader(opened))
    rows = [rows[i] for i in np.linspace(0, len(rows) - 1, count).astype(int)]
    by_file = {row["file"]: row for row in rows}
    features, ages, men = [], [], []
    with tarfile.open(labelled) as tar:
        for member in tar:
            row, data = by_file.get(member.name), tar.extractfile(member)
            if row is None or data is None:
                continue
            points = np.array([[float(row[f"{part}_{axis}"]) for axis in "xy"] for part in POINTS])
            features.append(encoder.embed(encoder.crop(load_photo(data.read()), points)[None])[0])
            ages.append(float(row["age"]))
            men.append(row["sex"] == "M")
    units, years, sexes = np.stack(features), np.array(ages), np.array(men)
    units /= np.linalg.norm(units, axis=1, keepdims=True)
    test = np.arange(len(units)) % 5 == 0
    age = make_pipeline(StandardScaler(), Ridge(100)).fit(units[~test], years[~test])
    sex = make_pipeline(StandardScaler(), LogisticRegression(C=0.01, max_iter=500)).fit(units[~test], sexes[~test])
    error = np.abs(age.predict(units[test]) - years[test]).mean()
    right = sex.score(units[test], sexes[test])
    print(f"other photos: age within {error:.1f} years on average, sex right in {right:.1%}", flush=True)
    return Estimators(age, sex)


def find(
    pipe: Any, analyzer: FaceAnalyzer, photos: dict[str, list[bytes]], count: int
) -> list[tuple[Identity, np.ndarray]]:
    """People by their first photo, with the embedding of the second one."""
    found: list[tuple[Identity, np.ndarray]] = []
    for name in sorted(photos):
        if len(found) == count or len(photos[name]) < 2:
            continue
        first, second = (load_photo(data) for data in photos[name][:2])
        truth = embedding(analyzer, second)
        try:
            person = pipe.encode_identity(first, face="largest")
        except FaceError:  # the default detector does not find the face
            continue
        if np.isfinite(truth).all():
            found.append((person, truth))
    return found


if __name__ == "__main__":
    tyro.cli(main)
