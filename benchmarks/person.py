"""How like the person `idgen train person` becomes: several ways to tune, on people who were never trained on.

    python benchmarks/person.py people/ --judge imagenet:mobilefacenet.onnx --output tuned/

`people` has a folder of photos for each person. The last photo of each is not seen by the run, not even to stop it. It
is compared with pictures of other noise, by an encoder that the run has not used. Started again, the benchmark
continues. It prints the table of what is done. Intervals are bootstrapped over people.
"""

from __future__ import annotations

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro

from idgen import Identity
from idgen.commands.shared import has_lora, load_lora
from idgen.evaluation.intervals import interval
from idgen.evaluation.judges import Judges, read_faces
from idgen.faces import FaceAnalyzer, load_photo, open_encoder
from idgen.faces.registry import default_detector
from idgen.files import read_json, write_bytes
from idgen.tiny import load_tiny, load_tiny_base
from idgen.training.config import LoopConfig
from idgen.training.person.config import PersonConfig
from idgen.training.person.run import train_person

ADAPTER = "adapter, not tuned"
WAYS: dict[str, dict[str, Any]] = {
    ADAPTER: {},
    "words": {"learn": "words"},
    "words, two phases": {"learn": "words", "phase": 0.6, "background_weight": 0.1},
    "LoRA": {"learn": "lora"},
    "LoRA and words": {},
    "LoRA and words, triplet": {"triplet": 1.0},
    "DoRA and words": {"dora": True},
    "from the adapter": {"id_adapter": "tiny"},
    "from the adapter, triplet": {"id_adapter": "tiny", "triplet": 1.0},
}
"""Name of a way → settings of `PersonConfig`."""

SEEDS = range(100, 104)


def tune(photos: list[Path], settings: dict[str, Any], updates: int, prior: Path, folder: Path) -> float:
    """Tune on photos; returns the seconds. All people share the prior pictures, which do not depend on them."""
    loop = LoopConfig(
        max_train_steps=updates,
        train_batch_size=4,
        checkpointing_steps=max(updates // 2, 1),
        checkpoints_total_limit=1,
    )
    with tempfile.TemporaryDirectory() as name:
        for photo in photos:
            shutil.copy(photo, name)
        if prior.is_dir():
            shutil.copytree(prior, folder / "prior")
        few: dict[str, Any] = {"prior_pictures": 16, "validation_pictures": 2, "loop": loop}
        start = time.perf_counter()
        train_person(PersonConfig(photos=Path(name), output_dir=folder, **few, **settings))
    if not prior.is_dir():
        shutil.copytree(folder / "prior", prior)
    return time.perf_counter() - start


def draw(folder: Path | None, photos: list[Path], word: str) -> list[np.ndarray]:
    """Pictures of the person, (height, width, 3) uint8 each."""
    pipeline: Any = load_tiny() if folder is None else load_tiny_base()
    if folder is None:
        person: Any = pipeline.encode_identity([str(photo) for photo in photos])
    else:
        pipeline.load_id_adapter(folder)
        person = Identity.load(folder / "identity.safetensors")
        if has_lora(str(folder)):
            load_lora(pipeline, str(folder), "person")
    pipeline.set_progress_bar_config(disable=True)
    pictures = pipeline(
        f"a photo of {word}",
        id_embeds=person,
        num_inference_steps=25,
        guidance_scale=3.0,
        num_images_per_prompt=len(SEEDS),
        generator=[torch.Generator().manual_seed(seed) for seed in SEEDS],
    ).images
    return [np.asarray(picture) for picture in pictures]


def main(
    people: Annotated[Path, tyro.conf.Positional],
    /,
    judge: str,
    output: Path,
    ways: tuple[str, ...] = (*WAYS,),
    limit: int = 8,
    updates: int = 200,
) -> None:
    """Tune, measure and print.

    Args:
        people: Folder with a folder of photos for each person, three or more.
        judge: Face encoder that measures.
        output: Folder for what is tuned, and `results.json`.
        ways: Names of ways.
        limit: Number of people.
        updates: Updates of each run.
    """
    encoder, results = open_encoder(judge), output / "results.json"
    judges = Judges(detector=default_detector(encoder), encoders={encoder.name: encoder})
    found: dict[str, dict[str, Any]] = read_json(results) if results.is_file() else {}
    folders = sorted(folder for folder in people.iterdir() if folder.is_dir())[:limit]
    for number, folder in enumerate(folders):
        *photos, test = sorted(folder.iterdir())
        reference = FaceAnalyzer(judges.detector, encoder).find(load_photo(test), "largest").embedding
        for way in ways:
            key = f"{number}/{way}"
            if key in found:
                continue
            place = output / str(number) / way.replace(", ", "-").replace(" ", "-")
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir(parents=True)
            seconds = 0.0 if way == ADAPTER else tune(photos, WAYS[way], updates, output / "prior", place)
            word = "<id> person" if way == "LoRA" else "<id>"
            drawn = draw(None if way == ADAPTER else place, photos, word)
            cosines = [cosine(picture, reference, judges, encoder.name) for picture in drawn]
            found[key] = {"way": way, "person": number, "cosines": cosines, "seconds": seconds}
            write_bytes(results, json.dumps(found, indent=1).encode())
    show(found, ways)


def cosine(picture: np.ndarray, reference: np.ndarray, judges: Judges, name: str) -> float | None:
    """The similarity of a picture to the test photo; None if no face is found."""
    faces, crop = read_faces(picture, None, judges)
    unit = reference / np.linalg.norm(reference)
    return None if crop is None else float(faces[name][0] @ unit)


def show(found: dict[str, dict[str, Any]], ways: tuple[str, ...]) -> None:
    """Print the table."""
    print("| way | people | Sim(GT) | faces found | seconds |\n| --- | --- | --- | --- | --- |")
    for way in ways:
        rows = [row for row in found.values() if row["way"] == way]
        if not rows:
            continue
        means = np.array([np.mean([value or 0.0 for value in row["cosines"]]) for row in rows])
        shown = interval(lambda weights, means=means: float(weights @ means / weights.sum()), len(means))
        faces = np.mean([value is not None for row in rows for value in row["cosines"]])
        seconds = np.median([row["seconds"] for row in rows])
        similarity = f"{shown.value:.3f} ({shown.low:.3f} … {shown.high:.3f})"
        print(f"| {way} | {len(rows)} | {similarity} | {faces:.0%} | {seconds:.0f} |")


if __name__ == "__main__":
    tyro.cli(main)
