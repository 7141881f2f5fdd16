"""Measure how well pictures and adapters are traced: recipients in watermarks, fingerprints.

    python benchmarks/tracing.py photos/

Photos are cropped to squares. The parts can be run one by one: `--parts watermark fingerprint`.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from itertools import count, islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from PIL import Image, ImageEnhance, ImageOps
from rich.console import Console
from rich.progress import track
from scipy.stats import binomtest

from idgen.adapter import IdentityAdapter
from idgen.faces import FaceAnalyzer, load_photo
from idgen.losses import LossConfig, make_losses
from idgen.provenance import TracingKey, add_watermark, read_watermark
from idgen.provenance.fingerprint import fingerprint_weights, trace_weights
from idgen.provenance.recipient_code import FALSE_POSITIVE_RATE, decode_recipient
from idgen.tiny import load_tiny_base
from idgen.training.base import BaseModel
from idgen.training.batch import Batch
from idgen.training.denoiser import IdentityDenoiser
from idgen.vae import encode_images

BATCH = 2
SIDE = 128
"""Side of the built-in model's pictures."""
OTHER_KEYS = 2000
"""Keys of others with which each picture is read."""
NUMBERS = 50
"""Recipients whose fingerprints are compared with each copy."""
CONSOLE = Console(stderr=True)
Edit = Callable[[Image.Image], Image.Image]


def jpeg(quality: int) -> Edit:
    def compress(image: Image.Image) -> Image.Image:
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        return Image.fromarray(load_photo(file.getvalue()))

    return compress


def crop(share: float) -> Edit:
    """The middle, with this share of width and height."""

    def cut(image: Image.Image) -> Image.Image:
        x, y = (round(side * (1 - share) / 2) for side in image.size)
        return image.crop((x, y, image.width - x, image.height - y))

    return cut


def half(image: Image.Image) -> Image.Image:
    return image.resize((image.width // 2, image.height // 2))


def recoloured(image: Image.Image) -> Image.Image:
    return ImageEnhance.Color(ImageEnhance.Brightness(image).enhance(1.3)).enhance(0.5)


EDITS: dict[str, Edit] = {
    "none": lambda image: image,
    "JPEG 75": jpeg(75),
    "JPEG 30": jpeg(30),
    "half size": half,
    "crop 90 %": crop(0.9),
    "crop 75 %": crop(0.75),
    "brighter, half the colour": recoloured,
    "mirrored": ImageOps.mirror,
}


def main(
    photos: tyro.conf.Positional[Path],
    parts: tuple[Literal["watermark", "fingerprint"], ...] = ("watermark", "fingerprint"),
    pictures: int = 10,
    copies: int = 50,
    steps: int = 50,
) -> None:
    """Print the tables of the guide.

    Args:
        photos: Folder of photos.
        parts: What is measured.
        pictures: Photos that get watermarks, of each size.
        copies: Copies of the built-in adapter with a fingerprint.
        steps: Training steps of each copy.
    """
    files = sorted(photos.rglob("*.jpg"))
    torch.manual_seed(0)
    if "watermark" in parts:
        measure_watermark(files[:: max(len(files) // pictures, 1)][:pictures])
    if "fingerprint" in parts:
        measure_fingerprint(files[:: max(len(files) // 40, 1)][:32], copies, steps)


def measure_watermark(files: Sequence[Path]) -> None:
    print("| side |", " | ".join(EDITS), "|")
    key, rows = TracingKey(bytes(range(32))), []
    for side in (64, 256, 512):
        right = {name: np.zeros(len(files)) for name in EDITS}
        for i, file in enumerate(track(files, f"Watermarks, {side} px", console=CONSOLE)):
            marked = add_watermark(square(file, side), key, recipient=i)
            for name, edit in EDITS.items():
                read = read_watermark(edit(marked))
                right[name][i] = (read.recipient(key) or (None,))[0] == i
                rows.append(read.bits)
        print(f"| {side} px |", " | ".join(f"{values.mean():.0%}" for values in right.values()), "|", flush=True)
    numbers, wrong = count(), 0
    for bits in rows:  # each key is tried once, so that the cases are independent
        others = (TracingKey(number.to_bytes(32, "big")) for number in islice(numbers, OTHER_KEYS))
        wrong += sum(decode_recipient(other, bits) is not None for other in others)
    found = binomtest(wrong, len(rows) * OTHER_KEYS)
    low, high = found.proportion_ci()
    print(
        f"other keys: {wrong} of {found.n:,} = {found.statistic:.2e} ({low:.2e} to {high:.2e}), "
        f"stated {FALSE_POSITIVE_RATE:.2e}",
        flush=True,
    )


def measure_fingerprint(files: Sequence[Path], copies: int, steps: int) -> None:
    key = TracingKey(bytes(range(32)))
    pipeline: Any = load_tiny_base()
    adapter = IdentityAdapter.from_pretrained("tiny")
    adapter.attach(pipeline.unet)
    original = {name: value.clone() for name, value in adapter.state_dict().items()}
    train = trainer(adapter, pipeline, files)
    scores: dict[str, list[tuple[float, float, bool]]] = {}
    for recipient in track(range(copies), "Copies", console=CONSOLE):
        adapter.load_state_dict(fingerprint_weights(original, key, recipient))
        fresh = halved(adapter.state_dict())
        train(recipient, steps)
        trained = halved(adapter.state_dict())
        for name, state, base in (
            ("float16", fresh, original),
            (f"{steps} steps, float16", trained, original),
            (f"{steps} steps, float16, without the original", trained, None),
        ):
            first, second = trace_weights(state, key, range(NUMBERS), base)[:2]
            right = first.recipient == recipient and first.found and not second.found
            scores.setdefault(name, []).append((first.score, second.score, right))
    print("| copy | named rightly | score of the recipient | highest other score |")
    for name, values in scores.items():
        first, second, right = np.array(values, float).T
        own = f"{first.mean():.1f} (lowest {first.min():.1f})"
        print(f"| {name} | {right.sum():.0f} of {copies} | {own} | {second.max():.1f} |", flush=True)


def halved(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.half() for name, value in state.items()}


def trainer(adapter: IdentityAdapter, pipeline: Any, files: Sequence[Path]) -> Callable[[int, int], None]:
    """Fine-tunes the adapter on photos with a seed, for some steps, as `idgen train denoise` does."""
    analyzer = FaceAnalyzer()
    base = BaseModel(pipeline, torch.float32, torch.device("cpu"))
    step = IdentityDenoiser(base, adapter, make_losses(LossConfig.only(), base.parametrisation))
    found = [(file, analyzer.analyze(file)) for file in files]
    faces = [(file, faces[0]) for file, faces in found if len(faces) == 1]
    pictures = np.stack([np.asarray(Image.fromarray(load_photo(face.crop)).resize((SIDE, SIDE))) for _, face in faces])
    latents = encode_images(pipeline.vae, pictures)
    embeds = torch.from_numpy(np.stack([face.embedding for _, face in faces]))

    def train(seed: int, steps: int) -> None:
        random = torch.Generator().manual_seed(seed)
        optimiser = torch.optim.AdamW(adapter.parameters(), lr=1e-4)
        for _ in range(steps):
            rows = torch.randint(len(faces), (BATCH,), generator=random)
            batch = Batch(
                latents=latents[rows],
                prompts=("a photo of <id>",) * BATCH,
                id_embeds=embeds[rows],
                encoder=analyzer.encoder.name,
                target_embeds=embeds[rows],
                landmarks=torch.zeros(BATCH, 5, 2),
                face_found=torch.ones(BATCH, dtype=torch.bool),
                has_identity=torch.ones(BATCH, dtype=torch.bool),
                persons=rows,
            )
            with step:
                step(batch, random).total.backward()
            optimiser.step()
            optimiser.zero_grad()

    return train


def square(file: Path, size: int) -> Image.Image:
    return ImageOps.fit(Image.fromarray(load_photo(file)), (size, size))


if __name__ == "__main__":
    tyro.cli(main)
