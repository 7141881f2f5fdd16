"""How well an expression adapter draws the expression of another photo, and how much of the person stays.

    idgen train denoise --train_data_dir shards/ --output_dir expression/ --resolution 128 --encoder expression-v1 \\
        --beside tiny --no-normalised --blocks mid up --max_train_steps 200 --train_batch_size 32
    python benchmarks/expression.py lfw/ expression/ --yunet yunet.onnx --encoder imagenet:mobilefacenet.onnx \\
        --expressions lfw_expressions.csv

People whom no training has seen are drawn by the built-in model, each with the expression of another one of them. The
face encoder has seen no training either. The expression that was asked for and the one that was drawn are measured by
`ExpressionEncoder`, whose measures the adapter reads, and by a classifier of smiles that knows nothing of it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import tyro
from PIL import Image
from smiles import Judge, cell, draw, find_people, open_judge, read_emotions

from idgen import load_tiny
from idgen.evaluation.intervals import Interval, interval
from idgen.faces.expression import MEASURES, ExpressionEncoder

COLUMNS = ("mouth opening", "mouth corners", "all measures", "same smile", "Sim(GT)", "Sim(expression's person)")


def main(
    photos: tyro.conf.Positional[Path],
    adapter: tyro.conf.Positional[Path],
    /,
    yunet: Path,
    encoder: str,
    expressions: Path,
    scales: tuple[float, ...] = (0.0, 0.5, 1.0, 1.5),
    people: int = 40,
    labelled: int = 800,
    steps: int = 8,
    sheet: Path | None = None,
) -> None:
    """Print the table.

    Args:
        photos: Folder with LFW's tar files.
        adapter: Expression adapter for the built-in model.
        yunet: YuNet, which finds the faces that are measured.
        encoder: Unseen face encoder, as `open_encoder` opens it.
        expressions: Table of LFW's expressions, with the columns file and emotion.
        scales: Values of `expression_scale`.
        people: Number of people.
        labelled: Number of labelled photos that the smile is learned from.
        steps: Denoising steps.
        sheet: File for the pictures: a row for each scale.
    """
    judge, files = open_judge(yunet, encoder, photos, read_emotions(expressions), labelled)
    pipe: Any = load_tiny()
    pipe.set_progress_bar_config(disable=True)
    pipe.load_id_adapter(adapter, adapter_name="expression")
    persons = find_people(pipe, judge, files.people, people, lambda _: True)
    givers = [*persons[1:], persons[0]]
    asked = [pipe.encode_identity(each.photo, face="largest", adapter_name="expression") for each in givers]
    measures = np.stack([each.embedding().numpy() for each in asked])
    smiling = judge([each.photo for each in givers]).smiles > 0.5
    print(f"{len(persons)} people\n| expression_scale | {' | '.join(COLUMNS)} |\n{'| --- ' * (1 + len(COLUMNS))}|")
    rows = []
    for scale in scales:
        shown: list[dict[str, Any]] = [
            {"id_embeds": person.identity, "expression_image": face, "expression_scale": scale}
            for person, face in zip(persons, asked, strict=True)
        ]
        pictures = draw(pipe, shown, steps)
        rows.append(np.hstack(pictures))
        drawn, found = measure_faces(judge, pictures), judge(pictures)
        same = np.where(np.isnan(found.smiles), np.nan, (found.smiles > 0.5) == smiling)
        cells = [cell(agreement(drawn, measures, names), ".2f") for names in ("mouth opening", "mouth corner", "")]
        cells += [cell(same, ".0%"), cell(found.similarity([each.truth for each in persons]))]
        cells += [cell(found.similarity([each.truth for each in givers]))]
        print(f"| {scale:g} | {' | '.join(cells)} |", flush=True)
    if sheet is not None:
        Image.fromarray(np.vstack(rows)).save(sheet)


def measure_faces(judge: Judge, pictures: list[np.ndarray]) -> np.ndarray:
    """(pictures, 13), the expression in each picture; NaN without a face."""
    network, found = ExpressionEncoder(), np.full((len(pictures), len(MEASURES)), np.nan)
    for i, picture in enumerate(pictures):
        face = max(judge.detector.detect(picture), key=lambda each: each.area, default=None)
        if face is not None:
            found[i] = network.embed(network.crop(picture, face.landmarks)[None])[0]
    return found


def agreement(drawn: np.ndarray, asked: np.ndarray, name: str) -> Interval:
    """Correlation over people of what was drawn and what was asked for, the mean over the measures of this name.

    Args:
        drawn: (people, 13), measures in the pictures.
        asked: (people, 13), measures in the photos.
        name: What the names of measures end with; all if it is empty.
    """
    columns = [i for i, each in enumerate(MEASURES) if each.endswith(name)]
    known = np.isfinite(drawn).all(1)
    x, y = drawn[known][:, columns], asked[known][:, columns]

    def correlation(weights: np.ndarray) -> float:
        a, b = (each - np.average(each, axis=0, weights=weights) for each in (x, y))
        product, powers = weights @ (a * b), (weights @ a**2) * (weights @ b**2)
        return float((product / np.sqrt(powers)).mean())

    return interval(correlation, len(x))


if __name__ == "__main__":
    tyro.cli(main)
