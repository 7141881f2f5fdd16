"""How well people are forgotten who were never trained on, and how well others are kept.

    python benchmarks/forgetting.py people/ --unseen imagenet:mobilefacenet.onnx --yunet yunet.onnx

`people/` has a folder of photos for each person. Two photos of each of the first people are forgotten; pictures are
drawn from a third one, and compared with others. The people to keep are the next ones, and invented people. The
built-in model draws.
"""

from __future__ import annotations

import time
from pathlib import Path

import torch
import tyro

from idgen.adapter import IdentityAdapter
from idgen.base_model import open_base
from idgen.commands.forget import print_report
from idgen.enrollment import enroll
from idgen.evaluation.judges import Judges
from idgen.faces import DlibEncoder, FaceAnalyzer, load_photo, open_encoder
from idgen.faces.opencv import YuNetDetector
from idgen.identity import Identity
from idgen.provenance.forgetting import ForgettingSettings, forget
from idgen.provenance.forgetting.drawing import Painter
from idgen.provenance.forgetting.report import Subject, measure_forgetting
from idgen.provenance.forgetting.tokens import TokenForgetting
from idgen.provenance.forgetting.unet import forget_in_unet

KNOWN = 2
"""Photos of each person that are forgotten."""


def main(
    people: tyro.conf.Positional[Path],
    /,
    unseen: str,
    yunet: Path,
    forgotten: int = 8,
    others: int = 8,
    invented: int = 8,
    steps: int = 25,
    unet_steps: int = 0,
    settings: ForgettingSettings = ForgettingSettings(),  # noqa: B008  # frozen
) -> None:
    """Print a report.

    Args:
        people: A folder for each person.
        unseen: An encoder that nothing was trained with, as for `idgen evaluate --eval-encoder`.
        yunet: YuNet's file.
        forgotten: Number of people to forget, all in one adapter; those with four or more photos.
        others: Number of others: the next folders.
        invented: Number of invented others.
        steps: Denoising steps.
        unet_steps: Steps in the UNet after those in token space.
        settings: Settings.
    """
    detector = YuNetDetector(yunet)
    analyzer = FaceAnalyzer(detector, DlibEncoder())
    folders = sorted(folder for folder in people.iterdir() if folder.is_dir())
    several = [folder for folder in folders if len(list(folder.iterdir())) > KNOWN + 1]
    subjects = [_subject(folder, analyzer) for folder in several[:forgotten]]
    kept = [_other(folder, analyzer) for folder in several[forgotten : forgotten + others]]
    kept += [Subject(identity=Identity.random(DlibEncoder.name, 128, seed=10_000 + i)) for i in range(invented)]
    adapter = IdentityAdapter.from_pretrained("tiny")
    identities = [subject.identity for subject in subjects]
    pipeline = open_base("tiny", torch.float32)
    start = time.process_time()
    after = forget(adapter, identities, settings)
    print(f"token space: {time.process_time() - start:.0f} s of computing for {len(identities)} people")
    task = TokenForgetting(adapter, identities, settings)
    if unet_steps:
        start = time.process_time()
        after = forget_in_unet(pipeline, after, task, unet_steps, ["a photo of a face"])
        print(f"UNet: {time.process_time() - start:.0f} s of computing")
    judges = Judges(detector=detector, encoders={one.name: one for one in (open_encoder(unseen), DlibEncoder())})
    prompts = ["a photo of a face"]
    painter = Painter(pipeline=pipeline, judges=judges, prompts=prompts, steps=steps, guidance_scale=3.0)
    print_report(measure_forgetting(after, task, painter, subjects, kept))


def _subject(folder: Path, analyzer: FaceAnalyzer) -> Subject:
    photos = [load_photo(file) for file in sorted(folder.iterdir())]
    known, unseen, rest = photos[:KNOWN], photos[KNOWN], photos[KNOWN + 1 :][:2]
    identity, other = (enroll(each, analyzer, face="largest") for each in (known, unseen))
    return Subject(identity=identity, unseen=other, photos=rest)


def _other(folder: Path, analyzer: FaceAnalyzer) -> Subject:
    first, *rest = [load_photo(file) for file in sorted(folder.iterdir())[:3]]
    return Subject(identity=enroll(first, analyzer, face="largest"), photos=rest)


if __name__ == "__main__":
    torch.set_num_threads(1)
    tyro.cli(main)
