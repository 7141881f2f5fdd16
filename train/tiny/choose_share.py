"""What a share of the reward costs and gives: likeness by the adapter's own encoder, and styles, on 40 held-out
people who are not among those of docs/results.md.

    python train/tiny/choose_share.py train/tiny/tiny.toml --shares 0 0.5 0.6 0.65 1

Goes on from `train.py`'s stage `reward` and from `ablation.py`, whose judge of styles it asks.
"""

from __future__ import annotations

import argparse
import csv
import json
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from measure_adapter import cosines, pairs
from recipe.adapter import average, open_base
from recipe.config import Config, load_config
from recipe.crops import open_crops, template
from recipe.likeness import default_features

from idgen import Identity
from idgen.faces import DlibEncoder

PEOPLE = 40


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path)
    parser.add_argument("--shares", type=float, nargs="+", default=[0.0, 0.5, 0.6, 0.65, 1.0])
    arguments = parser.parse_args()
    settings = load_config(arguments.settings)
    cache = settings.paths.cache
    references, targets = other_people(settings)
    people = [Identity(embeddings=row[None], encoder=DlibEncoder.name) for row in torch.from_numpy(references)]
    pipe: Any = open_base({name: cache / name for name in ("autoencoder", "base", "joint")}).pipeline
    pipe.set_progress_bar_config(disable=True)
    for share in arguments.shares:
        with tempfile.TemporaryDirectory() as folder:
            average(cache / "adapter", cache / "reward", share, Path(folder))
            pipe.load_id_adapter(folder)
        likeness, style = measure(pipe, people, targets, settings)
        pipe.unload_id_adapter()
        print(f"share {share:g}: Sim(GT), own encoder {likeness:.4f}; right style {style:.1%}")


def other_people(settings: Config) -> tuple[np.ndarray, np.ndarray]:
    """Embeddings of a reference and of a target photo of each, (people, 128)."""
    data = pairs(settings, 10**6)
    references, targets = data["reference"][-PEOPLE:], data["target"][-PEOPLE:]
    names = set(open_crops(settings.paths.cache / "crops", "test")["person"][references].tolist())
    with (settings.paths.cache / "benchmark" / "people.csv").open(newline="") as file:
        assert not names & {line["person"] for line in csv.DictReader(file)}
    return data["embeds"][references], data["embeds"][targets]


def measure(pipe: Any, people: list[Identity], targets: np.ndarray, settings: Config) -> tuple[float, float]:
    """Mean cosine to the targets, and the share of pictures whose style the judge names."""
    folder = settings.paths.cache / "benchmark"
    judge: Any = onnxruntime.InferenceSession(str(folder / "judge.onnx"))
    labels = json.loads(judge.get_modelmeta().custom_metadata_map["labels"])
    likeness, right = [], []
    for line in (folder / "prompts.txt").read_text().splitlines():
        label, prompt = line.split("\t")
        drawn = pipe(
            [prompt] * len(people),
            num_inference_steps=settings.table.steps,
            guidance_scale=settings.table.guidance_scale,
            generator=[torch.Generator().manual_seed(0) for _ in people],
            id_embeds=people,
        ).images
        pixels = np.stack([np.asarray(picture) for picture in drawn])
        likeness.append(cosines(default_features(pixels, template(settings.crops)), targets))
        inputs = {judge.get_inputs()[0].name: (pixels / 255).astype(np.float32).transpose(0, 3, 1, 2)}
        right.append(judge.run(None, inputs)[0].argmax(1) == labels.index(label))
    return float(np.mean(likeness)), float(np.mean(right))


if __name__ == "__main__":
    main()
