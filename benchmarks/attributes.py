"""Directions of attributes: fit them, and measure what moving people along that of a smile changes in pictures.

    python benchmarks/attributes.py fit shards/ --table photos.csv --output src/idgen/directions
    python benchmarks/attributes.py smile shards/ lfw/ --yunet yunet.onnx --encoder imagenet:mobilefacenet.onnx \\
        --expressions lfw_expressions.csv
    python benchmarks/attributes.py words lfw/ tiny run/ --yunet yunet.onnx --encoder imagenet:mobilefacenet.onnx \\
        --expressions lfw_expressions.csv

`smile` fits the direction without the people of `train/splits/lfw_test.txt`, and measures pictures of them. With
`--others` it chooses the length of the step in pictures of people who are not among them either. `words` measures how
well the words "smiling" and "not smiling" act with several adapters. The encoder has seen no training.
"""

from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from smiles import Measured, Person, cell, draw, find_people, held_out, open_judge, read_emotions
from swap import read_files

from idgen import load_tiny
from idgen.attributes import Direction, auc
from idgen.data.index import read_index
from idgen.data.manifest import Manifest
from idgen.data.storage import join

WITHIN = {"smile": 0.17}
"""Attributes that change from photo to photo of a person → angle of a move by 1, a clear change in pictures: the
embeddings of photos differ by a tenth of it."""

ANGLES = (0.09, 0.17, 0.25)
"""Steps that `smile --others` chooses from, in radians."""

ENOUGH = 0.75
"""The smallest step is chosen with which so many people smile, or the one with which most do."""


def read_faces(manifest: Manifest, shards: str, columns: tuple[str, ...]) -> Iterator[dict[str, Any]]:
    """The rows of all faces of people in a prepared set."""
    for name in manifest.shards:
        for row in read_index(join(shards, f"{name}.parquet"), (*columns, "person", "dropped")).to_pylist():
            if row["person"] and row["dropped"] is None:
                yield row


def fit(
    shards: tyro.conf.Positional[str],
    /,
    table: Path,
    output: Path | None = None,
    held_out: int = 5,
) -> None:
    """Fit a direction to each attribute of a table, and print its AUC on people whom it was not fitted to.

    Args:
        shards: Folder or URL of a prepared set.
        table: CSV with a column source or label, as in the shards, and a column for each attribute: 1 with it, 0
            without, empty if it is not known.
        output: Folder for the files, one folder for each encoder in it.
        held_out: One in this many people is held out.
    """
    manifest = Manifest.open(shards)
    with table.open(newline="") as opened:
        told = list(csv.DictReader(opened))
    key = "source" if "source" in told[0] else "label"
    by_key = {row[key]: row for row in told}
    columns = (key, "embedding")
    rows = [row for row in read_faces(manifest, shards, columns) if row[key] in by_key]
    for name in [column for column in told[0] if column != key]:
        known = [row for row in rows if by_key[row[key]][name] in ("0", "1")]
        embeddings = np.array([row["embedding"] for row in known], np.float64)
        labels = np.array([by_key[row[key]][name] == "1" for row in known])
        people = np.array([row["person"] for row in known])
        order = {person: i for i, person in enumerate(np.random.default_rng(0).permutation(np.unique(people)))}
        held = np.array([order[person] % held_out == 0 for person in people])
        within = people[~held] if name in WITHIN else None
        found = Direction.fit(name, manifest.encoder, embeddings[~held], labels[~held], within)
        values = found.value(torch.from_numpy(embeddings)).numpy()
        found = Direction(
            name=name,
            encoder=found.encoder,
            axis=found.axis,
            step=WITHIN.get(name, found.step),
            auc=auc(values[held], labels[held]),
        )
        print(f"{found}: fitted to {(~held).sum()} photos, AUC of {held.sum()} others", flush=True)
        if output is not None:
            (output / manifest.encoder).mkdir(parents=True, exist_ok=True)
            found.save(output / manifest.encoder / f"{name}.safetensors")


def fit_smile_elsewhere(shards: str, emotions: dict[str, str]) -> Direction:
    """The direction of a smile by photos of people who are not held out."""
    manifest, apart = Manifest.open(shards), held_out()
    rows = [
        row
        for row in read_faces(manifest, shards, ("source", "label", "embedding"))
        if row["label"] not in apart and emotions.get(Path(row["source"]).name) in ("neutral", "happiness")
    ]
    print(f"fitted to {len(rows)} photos of people who are not drawn", flush=True)
    return Direction.fit(
        "smile",
        manifest.encoder,
        np.array([row["embedding"] for row in rows], np.float64),
        np.array([emotions[Path(row["source"]).name] == "happiness" for row in rows]),
        np.array([row["person"] for row in rows]),
    )


def smile(
    shards: tyro.conf.Positional[str],
    photos: tyro.conf.Positional[Path],
    /,
    yunet: Path,
    encoder: str,
    expressions: Path,
    amounts: tuple[float, ...] = (-1, 0, 0.5, 1),
    people: int = 24,
    others: int = 0,
    labelled: int = 800,
    steps: int = 8,
) -> None:
    """Draw people who do not smile in their photo, moved by several amounts, and print smiles and similarity.

    Args:
        shards: Folder or URL of LFW as a prepared set.
        photos: Folder with LFW's tar files.
        yunet: YuNet, which finds the faces that are measured.
        encoder: Unseen face encoder, as `open_encoder` opens it.
        expressions: Table of LFW's expressions, with the columns file and emotion.
        amounts: How far people are moved, in steps.
        people: Number of held-out people.
        others: Number of other people, in whose pictures the step is chosen; 0 for the step of the package.
        labelled: Number of labelled photos that the smile is learned from.
        steps: Denoising steps.
    """
    emotions = read_emotions(expressions)
    direction = fit_smile_elsewhere(shards, emotions)
    judge, files = open_judge(yunet, encoder, photos, emotions, labelled)
    pipe: Any = load_tiny()
    pipe.set_progress_bar_config(disable=True)

    def moved(persons: list[Person], step: float, amount: float) -> Measured:
        there = replace(direction, step=step)
        return judge(draw(pipe, [{"id_embeds": each.identity.moved(there, amount)} for each in persons], steps))

    step = WITHIN["smile"]
    if others:
        elsewhere = read_files(photos, {name for name in names_of(shards) if name not in held_out()}, {}, 0).people
        trial = find_people(pipe, judge, elsewhere, others, lambda smile: smile < 0.5)
        rates = {angle: float(np.nanmean(moved(trial, angle, 1).smiles > 0.5)) for angle in ANGLES}
        step = next((angle for angle in ANGLES if rates[angle] >= ENOUGH), max(ANGLES, key=lambda angle: rates[angle]))
        print(f"smiles of {len(trial)} other people by step: {rates}; chosen: {step}", flush=True)
    persons = find_people(pipe, judge, files.people, people, lambda smile: smile < 0.5)
    print(f"{len(persons)} people\n| amount | smile | similarity |\n| --- | --- | --- |")
    for amount in amounts:
        found = moved(persons, step, amount)
        similarity = found.similarity([each.truth for each in persons])
        print(f"| {amount:g} | {cell((found.smiles > 0.5) * 1.0, '.0%')} | {cell(similarity)} |", flush=True)


def words(
    photos: tyro.conf.Positional[Path],
    adapters: tyro.conf.Positional[tuple[str, ...]],
    /,
    yunet: Path,
    encoder: str,
    expressions: Path,
    people: int = 60,
    labelled: int = 800,
    steps: int = 8,
) -> None:
    """Draw people with the words "smiling" and "not smiling" by several adapters, and print who smiles.

    Args:
        photos: Folder with LFW's tar files.
        adapters: Folders of adapters for the built-in model; "tiny" is its own.
        yunet: YuNet, which finds the faces that are measured.
        encoder: Unseen face encoder, as `open_encoder` opens it.
        expressions: Table of LFW's expressions, with the columns file and emotion.
        people: Number of held-out people.
        labelled: Number of labelled photos that the smile is learned from.
        steps: Denoising steps.
    """
    judge, files = open_judge(yunet, encoder, photos, read_emotions(expressions), labelled)
    pipe: Any = load_tiny()
    pipe.set_progress_bar_config(disable=True)
    persons = find_people(pipe, judge, files.people, people, lambda smile: True)
    print(f"{len(persons)} people\n| adapter | word | as asked | similarity |\n| --- | --- | --- | --- |")
    for adapter in adapters:
        pipe.load_id_adapter(adapter)
        for word, smiles in (("smiling", True), ("not smiling", False)):
            given = [{"id_embeds": each.identity} for each in persons]
            found = judge(draw(pipe, given, steps, f"a photo of <id>, {word}"))
            similarity = found.similarity([each.truth for each in persons])
            asked = ((found.smiles > 0.5) == smiles) * 1.0
            print(f"| {Path(adapter).name} | {word} | {cell(asked, '.0%')} | {cell(similarity)} |", flush=True)


def names_of(shards: str) -> set[str]:
    """The names of photos of a set."""
    return {row["label"] for row in read_faces(Manifest.open(shards), shards, ("label",))}


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"fit": fit, "smile": smile, "words": words})
