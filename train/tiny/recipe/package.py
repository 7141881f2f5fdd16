"""The last stage: the averaged weights → a folder that `StableDiffusionPipeline.from_pretrained` opens."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from idgen import IdentityAdapter, IdentityNet
from idgen.convert import NET

from . import config
from .base import build_scheduler

CARD, ADAPTER_CARD = (Path(__file__).with_name(name) for name in ("card.md", "adapter_card.md"))


def make_package(settings: config.Config, folders: dict[str, Path]) -> None:
    """Write the model to `paths.output`, and beside it to `adapter` its adapter with the IdentityNet, in float16.

    Older ones are replaced, each whole or not at all.
    """
    output = settings.paths.output.resolve()
    with _replacing(output) as new:
        pipeline = build_pipeline(folders["autoencoder"], folders["base"], folders["joint"])
        pipeline.to(torch.float16).save_pretrained(new, safe_serialization=True)
        _change(new / "text_encoder" / "config.json", dtype="float32")  # as diffusers opens its half of the pipeline
        shutil.copy(CARD, new / "README.md")
    with _replacing(output.with_name("adapter")) as new:
        IdentityAdapter.from_pretrained(folders["averaged"]).to(torch.float16).save_pretrained(new)
        net = IdentityNet.from_pretrained(folders["identity_net"] / NET)
        torch.nn.Module.to(net, torch.float16).save_pretrained(new / NET)
        shutil.copy(ADAPTER_CARD, new / "README.md")


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A new folder that takes the place of another one when all is written; where parts lay before is left out."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    yield temporary
    for file in temporary.rglob("config.json"):
        table = json.loads(file.read_text())
        file.write_text(json.dumps({k: v for k, v in table.items() if k != "_name_or_path"}, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)


def _change(file: Path, **values: Any) -> None:
    table = json.loads(file.read_text())
    file.write_text(json.dumps({**table, **values}, indent=2) + "\n")


def build_pipeline(autoencoder: Path, base: Path, joint: Path | None = None) -> StableDiffusionPipeline:
    """The pipeline of finished trainings, float32, with the averaged weights.

    Args:
        autoencoder: Folder of its training.
        base: Folder of the base's training.
        joint: Folder of the training with the adapter, whose UNet goes before the base's.
    """
    text_encoder = CLIPTextModel.from_pretrained(base / "final" / "text_encoder", dtype=torch.float32)
    unet = base / "final" / "unet" if joint is None else joint / "unet"
    return StableDiffusionPipeline(
        vae=AutoencoderTiny.from_pretrained(autoencoder / "final"),
        text_encoder=text_encoder,
        tokenizer=CLIPTokenizer.from_pretrained(base / "final" / "tokenizer"),
        unet=UNet2DConditionModel.from_pretrained(unet),
        scheduler=build_scheduler(),
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )


def unpack(package: Path, autoencoder: Path, base: Path) -> None:
    """A packaged model → what the trainings of autoencoder and base would have left, to go on from there."""
    pipeline = StableDiffusionPipeline.from_pretrained(package, local_files_only=True)
    pipeline.vae.save_pretrained(autoencoder / "final")
    pipeline.unet.save_pretrained(base / "final" / "unet")
    pipeline.text_encoder.save_pretrained(base / "final" / "text_encoder")
    pipeline.tokenizer.save_pretrained(base / "final" / "tokenizer")
