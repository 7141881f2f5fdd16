"""Time of finding faces in training, and what a faster search changes in the reward.

    python benchmarks/detection.py lfw/ --yunet yunet.onnx

Pictures are photos, enlarged to 512 px, and pictures that the built-in model draws, 64 px. The identity reward of each
is its cosine to another face: that of the photo before it, or of the person who is drawn. Times are those of one core.
"""

from __future__ import annotations

import itertools
import statistics
import tarfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from PIL import Image
from rich.console import Console
from rich.table import Table

from idgen import Identity
from idgen.faces import DlibDetector, DlibEncoder, FaceDetector, load_photo
from idgen.faces.quick import QuickDetector
from idgen.losses import FaceDecoder, FaceEmbedder, Term, find_landmarks
from idgen.rewards import IdentityReward, WeightedRewards
from idgen.tiny import load_tiny
from idgen.training.base import BaseModel
from idgen.training.batch import Batch
from idgen.training.methods import AlignPropConfig
from idgen.training.reward_backprop import RewardStep


def photos(folder: Path, count: int) -> Iterator[np.ndarray]:
    """Photos of the tars of a folder, (512, 512, 3)."""
    for path in sorted(folder.glob("**/*.tar")):
        with tarfile.open(path) as tar:
            members = [member for member in tar if member.isfile() and member.name.endswith(".jpg")]
            for member in itertools.islice(members, 0, None, max(1, len(members) // count)):
                data = tar.extractfile(member)
                assert data is not None
                photo = Image.fromarray(load_photo(data.read()))
                yield np.asarray(photo.resize((512, 512), Image.Resampling.BICUBIC))


def drawn(pipeline: Any, people: list[Identity]) -> Iterator[np.ndarray]:
    """A picture of each person by the built-in model."""
    for seed, person in enumerate(people):
        generator = torch.Generator().manual_seed(seed)
        yield np.asarray(pipeline("a photo of a face", id_embeds=person, generator=generator).images[0])


def as_images(pictures: list[np.ndarray]) -> torch.Tensor:
    return torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 255


def compare(
    title: str, pictures: list[np.ndarray], targets: torch.Tensor, detectors: dict[str, FaceDetector]
) -> Table:
    """A row for each detector; the first is what the others are compared with."""
    table = Table(
        "detector", "ms", "×", "found", "landmarks moved, median", "largest", "reward", "moved, mean", title=title
    )
    images, embedder, first = as_images(pictures), FaceEmbedder.dlib(), None
    for name, detector in detectors.items():
        find_landmarks(images[:1], detector)  # opens its networks
        start = time.process_time()
        points, found = find_landmarks(images, detector)
        milliseconds = 1000 * (time.process_time() - start) / len(images)
        with torch.no_grad():
            rewards = torch.cosine_similarity(embedder(images, points), targets)
        first = first or (milliseconds, points, found, rewards)
        both = found & first[2]
        moved = (points - first[1]).norm(dim=-1).mean(1) / (first[1][:, 1] - first[1][:, 0]).norm(dim=-1)
        table.add_row(
            name,
            f"{milliseconds:.1f}",
            f"{first[0] / milliseconds:.1f}",
            f"{int(found.sum())} of {len(found)}",
            f"{moved[both].median():.3f}",
            f"{moved[both].max():.3f}",
            f"{rewards[both].mean():.3f}",
            f"{(rewards - first[3])[both].abs().mean():.4f}",
        )
    return table


def updates(pipeline: Any, people: list[Identity], detectors: dict[str, FaceDetector], rounds: int) -> Table:
    """Processor time of a reward update of the built-in model with each detector, which take turns."""
    base = BaseModel(pipeline, torch.float32, torch.device("cpu"))
    (adapter,) = pipeline.id_adapters.values()
    adapter.requires_grad_(True)
    embedder, count = FaceEmbedder.dlib(), len(people)
    embeds = torch.stack([person.embedding() for person in people])
    side = pipeline.unet.config.sample_size
    batch = Batch(
        latents=torch.zeros(count, pipeline.unet.config.in_channels, side, side),
        prompts=("a photo of a face",) * count,
        id_embeds=embeds,
        encoder=DlibEncoder.name,
        target_embeds=embeds,
        landmarks=torch.rand(count, 5, 2),
        face_found=torch.ones(count, dtype=torch.bool),
        has_identity=torch.ones(count, dtype=torch.bool),
        persons=torch.arange(count),
    )
    identity = Term(IdentityReward(embedder=embedder), 5.0, None, "face_found")
    seconds: dict[str, list[float]] = {name: [] for name in detectors}
    for i, (name, detector) in itertools.product(range(rounds + 1), detectors.items()):
        step = RewardStep(
            base,
            adapter,
            WeightedRewards({"identity": identity}),
            AlignPropConfig(denoising=0.0),
            embedders=[embedder],
            decoder=FaceDecoder(vae=pipeline.vae, margin=4, checkpointing=True),
            detector=detector,
        )
        start = time.process_time()
        with step:
            step(batch, torch.Generator().manual_seed(i)).total.backward()
        if i:  # the first round warms up
            seconds[name].append(time.process_time() - start)
    first = next(iter(seconds.values()))
    table = Table("detector", "s", "×", title=f"A reward update of the built-in model, {count} pictures of 8 steps")
    for name, each in seconds.items():
        ratio = statistics.median(a / b for a, b in zip(first, each, strict=True))
        table.add_row(name, f"{statistics.median(each):.2f}", f"{ratio:.2f}")
    return table


def main(folder: Path, /, yunet: Path | None = None, count: int = 100, rounds: int = 5) -> None:
    """Print three tables.

    Args:
        folder: Tars of photos, such as Labeled Faces in the Wild.
        yunet: YuNet's file; without it only dlib's detector is measured.
        count: Photos, and pictures.
        rounds: Timed updates of each detector.
    """
    torch.set_num_threads(1)
    detectors: dict[str, FaceDetector] = {
        "dlib": DlibDetector(),
        "dlib, in training": QuickDetector(DlibDetector()),
    }
    if yunet is not None:
        import cv2

        from idgen.faces.opencv import YuNetDetector

        cv2.setNumThreads(1)
        detectors |= {"YuNet": YuNetDetector(yunet), "YuNet, in training": QuickDetector(YuNetDetector(yunet))}
    console, embedder = Console(width=119), FaceEmbedder.dlib()
    shown = list(itertools.islice(photos(folder, count), count))
    with torch.no_grad():
        faces = embedder(as_images(shown), find_landmarks(as_images(shown), detectors["dlib"]).points)
    console.print(compare("Photos, 512 px", shown, faces.roll(1, 0), detectors))
    pipeline = load_tiny()
    pipeline.set_progress_bar_config(disable=True)
    people = [Identity.random(DlibEncoder.name, DlibEncoder.dim, seed=i) for i in range(count)]
    embeds = torch.stack([person.embedding() for person in people])
    console.print(compare("Pictures of the built-in model, 64 px", list(drawn(pipeline, people)), embeds, detectors))
    console.print(updates(pipeline, people[:4], detectors, rounds))


if __name__ == "__main__":
    tyro.cli(main)
