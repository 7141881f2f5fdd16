"""Whether protected photos are still recognised, by the encoder they were protected against and by others.

    python benchmarks/protection.py photos/ --unseen imagenet:mobilefacenet.onnx --yunet yunet.onnx

Each photo is protected with its own largest face. Similarities are cosines to the original photo; "strangers" are the
original photos of two people. The diffusion pass and the drawn pictures are those of the built-in model.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.progress import track
from rich.table import Table

from idgen.base_model import open_base
from idgen.evaluation.intervals import Interval, mean_interval
from idgen.faces import DlibDetector, DlibEncoder, FaceDetector, FaceEncoder, load_photo, open_encoder
from idgen.losses import FaceEmbedder
from idgen.provenance.protection import protect
from idgen.provenance.protection_report import (
    DIFFUSION_PASS,
    EDITS,
    Row,
    Visibility,
    diffusion_pass,
    measure_protection,
    measure_visibility,
)
from idgen.provenance.protection_settings import ProtectionSettings
from idgen.tiny import load_tiny

CONSOLE = Console(stderr=True)
DRAWN = "drawn from it"


def main(
    photos: tyro.conf.Positional[Path],
    /,
    unseen: tuple[str, ...] = (),
    yunet: Path | None = None,
    count: int = 40,
    strength: int = 8,
    steps: int = 100,
) -> None:
    """Print a table.

    Args:
        photos: Folder with one photo per person.
        unseen: Encoders that the photos are not protected against; see `idgen evaluate --help`.
        yunet: YuNet's file, to find faces with instead of dlib's detector.
        count: Number of photos.
        strength: See `ProtectionSettings`.
        steps: See `ProtectionSettings`.
    """
    detector = _detector(yunet)
    encoders = [DlibEncoder(), *map(open_encoder, unseen)]
    settings = ProtectionSettings(strength=strength, steps=steps)
    rows: list[list[Row]] = []
    visibility: list[Visibility] = []
    seconds: list[float] = []
    originals: list[list[np.ndarray]] = []
    base, painter = open_base("tiny", torch.float32), load_tiny()
    painter.set_progress_bar_config(disable=True)
    side = base.unet.config.sample_size * base.vae_scale_factor
    files = sorted(path for path in photos.rglob("*") if path.suffix.lower() in (".jpg", ".png", ".webp"))
    for path in track(files[:count], console=CONSOLE):
        photo = load_photo(path)
        face = max(detector.detect(photo), key=lambda found: found.area, default=None)
        if face is None:
            continue
        start = time.process_time()
        protected = protect(photo, face.landmarks, [FaceEmbedder.dlib()], settings)
        seconds.append(time.process_time() - start)
        edits = {**EDITS, DIFFUSION_PASS: diffusion_pass(base, face.landmarks, side)}
        measured = measure_protection(photo, protected, detector, encoders, edits)
        drawn = [_drawn(painter, image, face.landmarks) for image in (photo, protected)]
        rows.append(measured + _compared(photo, drawn, detector, encoders))
        visibility.append(measure_visibility(photo, protected))
        originals.append([_unit(encoder, photo, face.landmarks) for encoder in encoders])
    Console().print(_table(rows, originals, encoders))
    psnr, ssim = (np.median([getattr(each, name) for each in visibility]) for name in ("psnr", "ssim"))
    print(f"{len(rows)} photos, PSNR {psnr:.1f} dB, SSIM {ssim:.4f}, {np.median(seconds):.1f} s of computing a photo")


def _drawn(painter: Any, photo: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    """The picture that the built-in model draws from the face of a photo."""
    encoder = DlibEncoder()
    embedding = encoder.embed(encoder.crop(photo, landmarks)[None])[0]
    picture = painter(
        "a photo of a face",
        id_embeds=embedding,
        num_inference_steps=20,
        guidance_scale=3.0,
        generator=torch.Generator().manual_seed(0),
    ).images[0]
    return np.asarray(picture)


def _compared(
    photo: np.ndarray, drawn: list[np.ndarray], detector: FaceDetector, encoders: list[FaceEncoder]
) -> list[Row]:
    """The pictures that are drawn from both photos, compared with the original photo."""
    pairs = [measure_protection(photo, picture, detector, encoders, {DRAWN: lambda image: image}) for picture in drawn]
    return [row._replace(before=from_photo.after) for from_photo, row in zip(*pairs, strict=True)]


def _detector(yunet: Path | None) -> FaceDetector:
    if yunet is None:
        return DlibDetector()
    from idgen.faces.opencv import YuNetDetector

    return YuNetDetector(yunet)


def _unit(encoder: FaceEncoder, photo: np.ndarray, landmarks: np.ndarray) -> np.ndarray:
    embedding = encoder.embed(encoder.crop(photo, landmarks)[None])[0]
    return embedding / np.linalg.norm(embedding)


def _table(rows: list[list[Row]], originals: list[list[np.ndarray]], encoders: list[FaceEncoder]) -> Table:
    table = Table("encoder", "edit", "original", "protected", "strangers", "no face")
    people = np.arange(len(rows))
    for number, encoder in enumerate(encoders):
        units = np.stack([person[number] for person in originals])
        strangers = (units @ units.T)[np.triu_indices(len(units), 1)].mean()
        of_encoder = [[row for row in person if row.encoder == encoder.name] for person in rows]
        for same_edit in zip(*of_encoder, strict=True):
            before, after = (np.array([getattr(row, name) for row in same_edit]) for name in ("before", "after"))
            figures = (_told(mean_interval(values, people)) for values in (before, after))
            missed = f"{np.isnan(after).mean():.0%}"
            table.add_row(encoder.name, same_edit[0].edit, *figures, f"{strangers:.3f}", missed)
    return table


def _told(interval: Interval) -> str:
    return f"{interval.value:.3f} ({interval.low:.3f} to {interval.high:.3f})"


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main)
