"""Measure the threshold of a blocklist: false matches of different people, and misses of the same person.

    idgen prepare lfw/ --output shards/
    python benchmarks/blocklist.py shards/

The photos are in a folder for each person (Labeled Faces in the Wild). The threshold is chosen on people who are not
in train/splits/lfw_test.txt, and measured on those who are, so no person is in both groups.
"""

from __future__ import annotations

import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from idgen.evaluation.intervals import Interval
from idgen.provenance.thresholds import find_threshold, match_rate

HELD_OUT = Path(__file__).parents[1] / "train" / "splits" / "lfw_test.txt"


def main(shards: str) -> None:
    held_out = {line for line in HELD_OUT.read_text().splitlines() if not line.startswith("#")}
    people = read_people(Path(shards))
    known = np.stack([rows[0] for name, rows in people.items() if name not in held_out])
    unseen = [rows for name, rows in people.items() if name in held_out]
    strangers = np.stack([rows[0] for rows in unseen])
    print(f"{len(known)} people to calibrate, {len(unseen)} held out")
    for rate in (1e-3, 1e-4, 1e-5):
        found = find_threshold(known @ known.T, rate)
        print(f"\nthreshold {found.threshold:.4f} ({found.pairs:,} pairs of strangers)")
        print(f"false-match rate: {spell(found.false_match_rate)}")
        print(f"among people held out: {spell(match_rate(strangers @ strangers.T, found.threshold))}")
        for photos in (1, 3):
            missed = [
                float(mean(rows[:photos]) @ row < found.threshold)
                for rows in unseen
                for row in rows[photos:]
                if len(rows) > photos
            ]
            print(f"listed by {photos} photo(s), another one missed: {np.mean(missed):.1%} of {len(missed)}")


def read_people(shards: Path) -> dict[str, np.ndarray]:
    """Person → (photos, dim) unit-length embeddings of the photos in which one face was found."""
    people: dict[str, list[np.ndarray]] = defaultdict(list)
    for file in sorted(shards.glob("*.parquet")):
        rows = pq.read_table(file, columns=["key", "label", "embedding", "dropped"]).to_pylist()
        faces: dict[str, int] = defaultdict(int)
        for row in rows:
            faces[row["key"]] += 1
        for row in rows:
            if row["dropped"] is None and faces[row["key"]] == 1:
                embedding = np.asarray(row["embedding"], np.float32)
                people[row["label"]].append(embedding / np.linalg.norm(embedding))
    return {name: np.stack(rows) for name, rows in people.items()}


def mean(rows: np.ndarray) -> np.ndarray:
    total = rows.sum(0)
    return total / np.linalg.norm(total)


def spell(rate: Interval) -> str:
    return f"{rate.value:.1e} ({rate.low:.1e} … {rate.high:.1e})"


if __name__ == "__main__":
    main(sys.argv[1])
