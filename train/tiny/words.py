"""Measure whether the words of the captions act in pictures that the base draws without an identity.

    python train/tiny/words.py train/tiny/tiny128.toml BASE

Pose, light, background and sharpness are measured as for the captions; sex and smile by the classifiers that labelled
the photos. Prints, for each word, the share of pictures that show what it says, with the word and without it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from diffusers import StableDiffusionPipeline
from recipe.attributes import COLUMN, WORDS, describe
from recipe.config import Config, load_config
from recipe.crops import open_crops
from recipe.faces import load_faces
from recipe.labels import fit, labelled, mouth, quality
from recipe.package import GUIDANCE_SCALE

from idgen.faces import DlibEncoder
from idgen.faces.opencv import YuNetDetector
from idgen.tiny.usage import usage_of

STEPS, BATCH = 25, 10
SENTENCES = {"sex": "a photo of a {}"}
PLAIN = "a photo of a face"
Measure = Callable[[Sequence[np.ndarray]], np.ndarray]
"""RGB pictures → the attribute of each, 0 for none."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("settings", type=Path)
    parser.add_argument("base", type=Path)
    parser.add_argument("--pictures", type=int, default=40, help="pictures of each prompt")
    arguments = parser.parse_args()
    measures = measures_of(load_config(arguments.settings))
    pipeline = StableDiffusionPipeline.from_pretrained(arguments.base, local_files_only=True)
    known = {*usage_of(str(arguments.base)).words}
    plain = draw(pipeline, PLAIN, arguments.pictures)
    print("| word | with it | without |\n| --- | --- | --- |")
    for attribute, measure in measures.items():
        without = measure(plain)
        for value, word in enumerate(WORDS[attribute]):
            if not word or not {*word.split()} <= known:
                continue
            sentence = SENTENCES.get(attribute, f"{PLAIN}, {{}}").format(word)
            shares = [
                float((found == value).mean()) for found in (measure(draw(pipeline, sentence, len(plain))), without)
            ]
            print(f"| {word} | {100 * shares[0]:.0f} % | {100 * shares[1]:.0f} % |", flush=True)


def draw(pipeline: Any, prompt: str, count: int) -> list[np.ndarray]:
    """Pictures of a prompt, seeds 0 to count - 1."""
    pipeline.set_progress_bar_config(disable=True)
    found: list[np.ndarray] = []
    for start in range(0, count, BATCH):
        seeds = [torch.Generator().manual_seed(seed) for seed in range(start, min(start + BATCH, count))]
        images = pipeline(
            [prompt] * len(seeds),
            num_inference_steps=STEPS,
            guidance_scale=GUIDANCE_SCALE,
            generator=seeds,
            output_type="np",
        ).images
        found += list((images * 255).round().astype(np.uint8))
    return found


def measures_of(settings: Config) -> dict[str, Measure]:
    """Attribute → how it is measured."""
    detector, encoder = YuNetDetector(settings.path("yunet")), DlibEncoder()

    def landmarks(picture: np.ndarray) -> np.ndarray:
        faces = detector.detect(picture)
        return max(faces, key=lambda face: face.area).landmarks if faces else settings.crops.template

    def described(column: int) -> Measure:
        return lambda pictures: np.array([describe(picture, landmarks(picture))[column] for picture in pictures])

    def embeds(pictures: Sequence[np.ndarray]) -> np.ndarray:
        return encoder.embed(np.stack([encoder.crop(picture, landmarks(picture)) for picture in pictures]))

    nets = classifiers(settings)
    measures = {name: described(COLUMN[name]) for name in ("pose", "light", "background")}
    measures["quality"] = lambda pictures: quality(np.stack(pictures))
    if "smile" in nets:
        measures["smile"] = lambda pictures: nets["smile"].predict(np.stack([mouth(picture) for picture in pictures]))
    if "sex" in nets:
        measures["sex"] = lambda pictures: nets["sex"].predict(embeds(pictures))
    return measures


def classifiers(settings: Config) -> dict[str, Any]:
    """The classifiers that label photos, fitted to the labels of the training photos."""
    folders = settings.stages
    parts = {part: open_crops(folders["crops"], part) for part in ("train", "test")}
    found = {}
    for name, attribute in labelled(settings, parts, load_faces(settings, folders["faces"])):
        told = attribute.said["train"] > 0
        if len(np.unique(attribute.said["train"][told])) > 1:
            found[name] = fit(attribute.features["train"][told], attribute.said["train"][told])
    return found


if __name__ == "__main__":
    main()
