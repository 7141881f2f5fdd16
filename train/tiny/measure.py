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
from recipe.autoencoder import to_tensor
from recipe.captions import PROMPTS
from recipe.config import Config, load_config
from recipe.crops import central_face, crop_face, template
from recipe.curves import draw_curves
from recipe.judge import recognise, train_judge
from recipe.likeness import UnseenEncoder, default_features, frechet_distance, nearest
from recipe.photos import read_photos, test_people
from tqdm import trange

from idgen.faces import ARCFACE_TEMPLATE, DlibDetector, align_face
from idgen.faces.opencv import YuNetDetector
from idgen.tiny import load_tiny_base

PICTURES, PER_STYLE, NEAREST = 200, 30, 24


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path)
    parser.add_argument("--docs", type=Path, default=Path(__file__).parents[2] / "docs" / "images" / "tiny")
    parser.add_argument("--guidance", type=float, default=3.0)
    arguments = parser.parse_args()
    settings = load_config(arguments.settings)
    arguments.docs.mkdir(parents=True, exist_ok=True)
    draw_curves(settings.paths.cache, arguments.docs / "curves.png")

    pipe = load_tiny_base()
    pipe.set_progress_bar_config(disable=True)
    results = {
        "reconstruction": reconstruction(settings, pipe),
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


def reconstruction(settings: Config, pipe: StableDiffusionPipeline) -> dict[str, float]:
    """Cosine to the original photo by the unseen encoder, of the crop and of what the autoencoder makes of it."""
    detector, unseen = YuNetDetector(settings.paths.yunet), test_people(settings.paths.test_people)
    originals, crops, seen = [], [], set()
    for person, _, photo in read_photos(settings.paths.photos):
        if person not in unseen or person in seen:
            continue
        if (face := central_face(detector.detect(photo), photo.shape)) is not None:
            seen.add(person)
            originals.append(align_face(photo, face.landmarks, ARCFACE_TEMPLATE, 112))
            large = crop_face(photo, face.landmarks, settings.crops, settings.crops.size)
            crops.append(large)
    images = np.stack(crops)
    points, encoder = (
        template(settings.crops),
        UnseenEncoder(settings.paths.yunet.with_name("mobilefacenet_eval.onnx")),
    )
    with torch.no_grad():
        pixels = to_tensor(torch.from_numpy(images))
        made = torch.cat([pipe.vae.decode(pipe.vae.encode(part).latents).sample for part in pixels.split(64)])
    back = ((made.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().numpy()
    truth = encoder.embed(np.stack(originals))
    crop, ours = encoder.embed_tiny(images, points), encoder.embed_tiny(back, points)
    return {
        "people": len(images),
        "crop": float((truth * crop).sum(1).mean()),
        "reconstruction": float((truth * ours).sum(1).mean()),
        "other people": float((truth * np.roll(crop, 1, axis=0)).sum(1).mean()),
        "l1": float((made - pixels).abs().mean()),
    }


def generated(settings: Config, pipe: StableDiffusionPipeline, guidance: float) -> dict[str, Any]:
    """Faces found, FID, and how near the nearest training picture is."""
    detector, points = DlibDetector(), template(settings.crops)
    free = draw(pipe, "", PICTURES, 1.0)
    asked = draw(pipe, PROMPTS["photo"], PICTURES, guidance)
    with np.load(settings.paths.cache / "crops" / "train.npz", allow_pickle=False) as arrays:
        train, train_people = arrays["images"], arrays["person"]
    with np.load(settings.paths.cache / "crops" / "test.npz", allow_pickle=False) as arrays:
        test, people = arrays["images"], arrays["person"]
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
