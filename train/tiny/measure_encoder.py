"""Is what the adapter reads the limit? How well the default encoder's embedding of one photo predicts the unseen
encoder's embedding of another photo of the same person.

    python train/tiny/measure_encoder.py train/tiny/tiny.toml

A ridge regression over the people held out, in five parts by person: each part is predicted from the other four. No
picture drawn from the first embedding could be expected to be much more like the person, for the second encoder, than
that prediction is.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from recipe.config import load_config
from recipe.crops import open_crops

from idgen.evaluation.separability import separability

PARTS, RIDGE = 5, 0.1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path)
    cache = load_config(parser.parse_args().settings).paths.cache
    names, person = np.unique(open_crops(cache / "crops", "test")["person"], return_inverse=True)
    with np.load(cache / "embeddings" / "test.npz", allow_pickle=False) as arrays:
        own, unseen = unit(arrays["embeds"]), unit(arrays["unseen"])
    part = np.random.default_rng(0).integers(PARTS, size=len(names))[person]
    predicted = np.zeros_like(unseen)
    for held_out in range(PARTS):
        rest = part != held_out
        predicted[~rest] = predict(own[rest], unseen[rest], own[~rest])
    same = (person[:, None] == person) & ~np.eye(len(person), dtype=bool)
    for title, rows in (
        ("predicted from the default encoder", unit(predicted)),
        ("the unseen encoder itself", unseen),
    ):
        cosines = rows @ unseen.T
        genuine, impostor = cosines[same], cosines[person[:, None] != person]
        print(f"{title}: Sim(GT) {genuine.mean():.3f}, EER {separability(genuine, impostor).eer:.1%}")


def predict(inputs: np.ndarray, outputs: np.ndarray, asked: np.ndarray) -> np.ndarray:
    """Ridge regression with an offset."""
    mean, offset = inputs.mean(0), outputs.mean(0)
    centred = inputs - mean
    weights = np.linalg.solve(centred.T @ centred + RIDGE * np.eye(inputs.shape[1]), centred.T @ (outputs - offset))
    return (asked - mean) @ weights + offset


def unit(rows: np.ndarray) -> np.ndarray:
    """Each row of (n, dim) at length 1."""
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)


if __name__ == "__main__":
    main()
