"""Measure `idgen-tiny`: the figures of docs/tiny.md, and its curves.

    python train/tiny/measure.py train/tiny/tiny.toml

Needs the caches that the training left, the photos, and MobileFaceNet's ONNX file (beside YuNet's), which nothing
was trained on. Only generated pictures and numbers are written.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from recipe.captions import PROMPTS
from recipe.config import Config, load_config
from recipe.crops import open_crops, template
from recipe.curves import draw_curves
from recipe.judge import recognise, train_judge
from recipe.likeness import UnseenEncoder, default_features, frechet_distance, nearest
from recipe.reconstruction import reconstruction
from tqdm import trange

from idgen.faces import DlibDetector
from idgen.tiny import load_tiny_base

PEOPLE, PICTURES, PER_STYLE, NEAREST = 500, 200, 30, 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path)
    parser.add_argument("--docs", type=Path, default=Path(__file__).parents[2] / "docs" / "images" / "tiny")
    parser.add_argument("--guidance", type=float, default=3.0)
    arguments = parser.parse_args()
    settings = load_config(arguments.settings)
    arguments.docs.mkdir(parents=True, exist_ok=True)
    draw_curves(settings.paths.cache, arguments.docs / "curves.png")

    judge = UnseenEncoder(settings.paths.yunet.with_name("mobilefacenet_eval.onnx"))
    pipe = load_tiny_base()
    pipe.set_progress_bar_config(disable=True)
    results = {
        "reconstruction": reconstruction(
            pipe.vae, open_crops(settings.paths.cache / "crops", "test"), template(settings.crops), judge, PEOPLE
        ),
        **generated(settings, pipe, arguments.guidance),
        "styles": styles(settings, pipe, arguments.guidance),
    }
    (arguments.docs / "measured.json").write_text(json.dumps(results, indent=2) + "\n")
    print(json.dumps(results, indent=2))


def draw(pipe: StableDiffusionPipeline, prompt: str, count: int, guidance: float, seed: int = 0) -> np.ndarray:
    """(count, 64, 64, 3) uint8; picture i has the seed `seed + i`."""
    found = []
    for start in trange(0, count, 25, desc=prompt or "no prompt", mininterval=20):
        seeds = range(seed + start, seed + min(count, start + 25))
        generators = [torch.Generator().manual_seed(s) for s in seeds]
        made = pipe([prompt] * len(seeds), num_inference_steps=25, guidance_scale=guidance, generator=generators)
        found.append(np.stack([np.asarray(image) for image in made.images]))
    return np.concatenate(found)


def generated(settings: Config, pipe: StableDiffusionPipeline, guidance: float) -> dict[str, Any]:
    """Faces found, FID, and how near the nearest training picture is."""
    detector, points = DlibDetector(), template(settings.crops)
    free = draw(pipe, "", PICTURES, 1.0)
    asked = draw(pipe, PROMPTS["photo"], PICTURES, guidance)
    seen, held_out = (open_crops(settings.paths.cache / "crops", part) for part in ("train", "test"))
    train, train_people, test, people = seen["images"], seen["person"], held_out["images"], held_out["person"]
    bank, held_out = default_features(train, points), default_features(test, points)
    ours = {"no prompt": default_features(free, points), "photo": default_features(asked, points)}
    some = np.random.default_rng(settings.seed).permutation(len(bank))[:PICTURES]
    other = np.random.default_rng(settings.seed).permutation(len(held_out))[:NEAREST]
    strangers = people[other, None] == train_people[None]
    return {
        "faces found": {
            "no prompt": float(np.mean([bool(detector.detect(image)) for image in free])),
            "photo": float(np.mean([bool(detector.detect(image)) for image in asked])),
            "held-out crops": float(np.mean([bool(detector.detect(image)) for image in test[:PICTURES]])),
        },
        "fid": {
            **{name: frechet_distance(features, held_out) for name, features in ours.items()},
            "training crops": frechet_distance(bank[some], held_out),
        },
        "nearest training picture": {
            "generated": nearest(ours["photo"][:NEAREST], bank).round(3).tolist(),
            "unseen people": nearest(held_out[other], bank, strangers).round(3).tolist(),
        },
    }


def styles(settings: Config, pipe: StableDiffusionPipeline, guidance: float) -> dict[str, Any]:
    """Share of generated pictures in which the judge sees the style that was asked for."""
    judge, trusted = train_judge(settings.paths.cache / "crops", settings.seed)
    rates = {
        style: float((recognise(judge, draw(pipe, prompt, PER_STYLE, guidance, 1000)) == number).mean())
        for number, (style, prompt) in enumerate(PROMPTS.items())
    }
    return {"judge on unseen people": trusted, "recognised": rates, "mean": float(np.mean(list(rates.values())))}


if __name__ == "__main__":
    torch.set_num_threads(2)
    main()
