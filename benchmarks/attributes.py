"""Directions of attributes: fit them, and measure what moving people along them changes in pictures.

    python benchmarks/attributes.py fit shards/ --table photos.csv --output src/idgen/directions
    python benchmarks/attributes.py draw lfw/ --yunet yunet.onnx --encoder imagenet:mobilefacenet.onnx \
        --expressions lfw_expressions.csv

The face encoder of `draw` has seen no training. A logistic regression on mouths detects smiles, which reads no
embedding, fitted to labelled photos of people who are not measured.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from swap import HELD_OUT, fit_smile, mouth, read_files
from tqdm import tqdm

from idgen import Identity, load_tiny
from idgen.attributes import Direction, auc
from idgen.data.index import read_index
from idgen.data.manifest import Manifest
from idgen.data.storage import join
from idgen.evaluation.intervals import mean_interval
from idgen.faces import load_photo, open_encoder
from idgen.faces.opencv import YuNetDetector

WITHIN = {"smile": 0.17}
"""Attributes that change from photo to photo of a person → angle of a move by 1, a clear change in pictures: the
embeddings of photos differ by a tenth of it."""


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
    columns = (key, "embedding", "person", "dropped")
    parts = [read_index(join(shards, f"{name}.parquet"), columns).to_pylist() for name in manifest.shards]
    rows = [row for part in parts for row in part if row["person"] and row["dropped"] is None and row[key] in by_key]
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


def draw(
    photos: tyro.conf.Positional[Path],
    /,
    yunet: Path,
    encoder: str,
    expressions: Path,
    id_adapter: Path | None = None,
    attribute: str = "smile",
    amounts: tuple[float, ...] = (0, 0.5, 1, -1),
    people: int = 24,
    labelled: int = 800,
    steps: int = 12,
) -> None:
    """Draw people who do not smile in their photo, moved by several amounts, and measure smile and identity.

    Args:
        photos: Folder with LFW's tar files.
        yunet: YuNet, which finds the faces that are measured.
        encoder: Unseen face encoder, as `open_encoder` opens it.
        expressions: Table of LFW's expressions, with the columns file and emotion.
        id_adapter: Adapter for the built-in model, instead of its own.
        attribute: Name or file of a direction of the default encoder.
        amounts: How far people are moved.
        people: Number of people.
        labelled: Number of labelled photos that the smile is learned from.
        steps: Denoising steps.
    """
    held = {line for line in HELD_OUT.read_text().splitlines() if not line.startswith("#")}
    emotions = {row["file"]: row["emotion"] for row in csv.DictReader(expressions.open())}
    files = read_files(photos, held, emotions, labelled)
    detector, judge = YuNetDetector(yunet), open_encoder(encoder)
    smile, accuracy = fit_smile(files.labelled, detector)
    print(f"a smile is told right in {accuracy:.0%} of other photos", flush=True)
    pipe: Any = load_tiny()
    if id_adapter is not None:
        pipe.load_id_adapter(id_adapter)
    pipe.set_progress_bar_config(disable=True)

    def measured(image: np.ndarray) -> tuple[float, np.ndarray]:
        """The probability of a smile, and the embedding; NaN without a face."""
        face = max(detector.detect(image), key=lambda each: each.area, default=None)
        if face is None:
            return np.nan, np.full(judge.dim, np.nan)
        embedding = judge.embed(judge.crop(image, face.landmarks)[None])[0]
        return float(smile.predict_proba(mouth(image, face.landmarks)[None])[0, 1]), embedding

    chosen: list[tuple[Identity, np.ndarray]] = []
    for name in sorted(files.people):
        if len(chosen) == people or len(files.people[name]) < 2:
            continue
        source, other = (load_photo(data) for data in files.people[name][:2])
        found = measured(source)[0], measured(other)[1]
        if found[0] < 0.5 and np.isfinite(found[1]).all():
            try:
                chosen.append((pipe.encode_identity(source, face="largest"), found[1]))
            except Exception as error:  # a face that the default detector does not find
                print(f"{name}: {error}", flush=True)
    for amount in tqdm(amounts, disable=None):
        pictures = []
        for start in range(0, len(chosen), 12):
            part = chosen[start : start + 12]
            pictures += pipe(
                ["a photo of <id>"] * len(part),
                id_embeds=[identity.moved(attribute, amount) for identity, _ in part],
                num_inference_steps=steps,
                guidance_scale=3.0,
                generator=[torch.Generator().manual_seed(start + i) for i in range(len(part))],
            ).images
        found = [measured(np.asarray(picture)) for picture in pictures]
        smiles = np.array([probability for probability, _ in found])
        likeness = np.array(
            [
                embedding @ truth / np.linalg.norm(embedding) / np.linalg.norm(truth)
                for (_, embedding), (_, truth) in zip(found, chosen, strict=True)
            ]
        )
        group = np.arange(len(chosen))
        rate, similarity = mean_interval((smiles > 0.5).astype(float), group), mean_interval(likeness, group)
        print(
            f"| {amount:g} | {rate.value:.0%} ({rate.low:.0%} … {rate.high:.0%}) | {np.nanmean(smiles):.2f} | "
            f"{similarity.value:.3f} ({similarity.low:.3f} … {similarity.high:.3f}) |",
            flush=True,
        )


if __name__ == "__main__":
    tyro.extras.subcommand_cli_from_dict({"fit": fit, "draw": draw})
