"""What adapters leave alone: the change outside of the face and the likeness of several adapters.

    idgen train denoise --train_data_dir shards/ --output_dir parallel/ --resolution 128 --max_train_steps 400
    idgen train denoise --train_data_dir shards/ --output_dir sequential/ --resolution 128 --max_train_steps 400 \\
        --placement sequential --optimizer.learning_rate 3e-3
    python benchmarks/placement.py people/ parallel/ sequential/ --judge imagenet:mobilefacenet.onnx --style sketches/

`people/` has a folder of two photos for each person: the first is the reference, the second the truth. Pictures are
drawn by the built-in model with the identity and without it, from the same noise. An adapter whose folder contains a
LoRA is drawn with the LoRA. Intervals are bootstrapped over people.

With `--style`, the distance to that style is measured twice: in colour saturation, which no loss has seen, and in the
features of the style losses.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import tyro
from PIL import Image

import idgen
from idgen.data.framing import aligned_framing
from idgen.evaluation.intervals import mean_interval
from idgen.faces import FaceAnalyzer, open_encoder
from idgen.faces.photo import load_photo
from idgen.losses.style import fit_styles
from idgen.tiny import load_tiny_base
from idgen.training.faces import face_mask
from idgen.training.trainable import LORA_FILE
from idgen.vae import encode_images

PROMPT = "a photo of a face"
SIDE = 128


class Measured:
    """Photos of people, and how pictures of them are measured."""

    def __init__(self, people: Path, judge: str, count: int) -> None:
        folders = sorted(each for each in people.iterdir() if len(list(each.glob("*.jpg"))) > 1)
        self.encoder = open_encoder(judge)
        enroll, measure = FaceAnalyzer(), FaceAnalyzer(encoder=self.encoder)
        self.people, self.photos, truths = [], [], []
        for folder in folders:
            first, second = (load_photo(file) for file in sorted(folder.glob("*.jpg"))[:2])
            found, truth = enroll.analyze(first), measure.analyze(second)
            if found and truth and len(self.people) < count:
                self.people.append(
                    idgen.Identity(embeddings=torch.from_numpy(found[0].embedding[None]), encoder=enroll.encoder.name)
                )
                self.photos.append(first)
                truths.append(truth[0].embedding)
        self.truths = np.stack(truths)

    def similarity(self, pictures: list[Image.Image]) -> np.ndarray:
        """Cosine to the second photo. The faces of the model's pictures are all at the same place."""
        large = [np.asarray(each.resize((2 * SIDE, 2 * SIDE), Image.Resampling.BICUBIC)) for each in pictures]
        embeds = self.encoder.embed(np.stack([self.encoder.crop(each, 2 * template()) for each in large]))
        norms = np.linalg.norm(embeds, axis=1) * np.linalg.norm(self.truths, axis=1)
        return (embeds * self.truths).sum(1) / norms


def draw(pipe: Any, people: list[Any], steps: int, guidance: float, identity: bool) -> list[Image.Image]:
    """A picture of each person; the same noise with and without the identity."""
    pictures = []
    for i in range(0, len(people), 8):
        batch = people[i : i + 8]
        generators = [torch.Generator().manual_seed(i + j) for j in range(len(batch))]
        who: dict[str, Any] = {"id_embeds": batch} if identity else {}
        settings = {"num_inference_steps": steps, "guidance_scale": guidance, "generator": generators}
        pictures += pipe([PROMPT] * len(batch), **who, **settings).images
    return pictures


def template() -> np.ndarray:
    """(5, 2), the landmarks in pictures of the built-in model."""
    framing = aligned_framing("tiny")
    assert framing is not None
    return framing.template


def face_box() -> np.ndarray:
    """(128, 128), True in the box around the face in pictures of the built-in model, as training takes it."""
    points = torch.from_numpy(template())[None].float()
    return face_mask(points, torch.tensor([True]), SIDE, SIDE)[0, 0].numpy() > 0.5


def saturation(pictures: list[Image.Image]) -> np.ndarray:
    """Mean difference between the largest and the smallest channel, of 255."""
    return np.array([float(np.ptp(np.asarray(picture, np.float32), axis=2).mean()) for picture in pictures])


def cell(values: np.ndarray) -> str:
    found = mean_interval(values, np.arange(len(values)))
    return f"{found.value:.3f} ({found.low:.3f} … {found.high:.3f})"


def main(
    people: Annotated[Path, tyro.conf.Positional],
    adapters: Annotated[tuple[Path, ...], tyro.conf.Positional],
    /,
    judge: str,
    style: Path | None = None,
    count: int = 24,
    steps: int = 8,
    guidance: float = 3.0,
) -> None:
    """Draw, measure and print the table.

    Args:
        people: Folder with a folder of two photos for each person.
        adapters: Folders of adapters.
        judge: Face encoder that no training has used.
        style: Folder of pictures of a style.
        count: People.
        steps: Denoising steps.
        guidance: Guidance scale.
    """
    measured, inside = Measured(people, judge, count), face_box()
    print(f"{len(measured.people)} people, the face's box takes {inside.mean():.0%} of the picture")
    head = ["adapter", "Sim(GT)", "change on the face", "change outside", "outside / on the face"]
    styles = None
    if style is not None:
        shown = [Image.fromarray(load_photo(file)).resize((SIDE, SIDE)) for file in sorted(style.glob("*.png"))]
        latents = encode_images(load_tiny_base().vae, np.stack([np.asarray(each) for each in shown]))
        styles = fit_styles([latents])
        head += ["saturation", "distance to the style"]
        print(f"saturation of the style's pictures: {cell(saturation(shown))}")
    print(f"| {' | '.join(head)} |\n{'| --- ' * len(head)}|")
    for folder in adapters:
        pipe = load_tiny_base()
        pipe.set_progress_bar_config(disable=True)
        if (folder / LORA_FILE).is_file():
            pipe.load_lora_weights(str(folder))
        pipe.load_id_adapter(folder)
        on, off = (draw(pipe, measured.people, steps, guidance, identity) for identity in (True, False))
        both = (np.stack([np.asarray(each, float) for each in pictures]) for pictures in (on, off))
        changed = np.abs(np.subtract(*both)).mean(3)
        within, outside = changed[:, inside].mean(1), changed[:, ~inside].mean(1)
        cells = [cell(measured.similarity(on)), *map(cell, (within, outside, outside / within))]
        if styles is not None:
            latents = encode_images(pipe.vae, np.stack([np.asarray(each) for each in on]))
            cells += [cell(saturation(on)), cell(styles.distances(latents)[0].numpy())]
        print(f"| {folder.name} | {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    tyro.cli(main)
