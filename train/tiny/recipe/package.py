"""Stage `pipeline`, and the packaged folders: trained networks as folders that diffusers and `idgen` open."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from transformers import CLIPTextModel, CLIPTokenizer

from idgen import IdentityAdapter, IdentityNet
from idgen.convert import NET
from idgen.data.framing import FRAMING
from idgen.tiny.usage import USAGE, Usage, usage_of

from . import config
from .base import build_scheduler
from .captions import taught_words
from .labels import open_labels

GUIDANCE_SCALE = 3.0
"""The guidance of the measurements in docs/results.md."""

LEARNING_RATE = 2e-3
"""Of tuning on one person; that of the small model's own LoRA."""

CARD, ADAPTER_CARD = (Path(__file__).with_name(name) for name in ("card.md", "adapter_card.md"))


def make_pipeline(settings: config.Config, folders: Mapping[str, Path]) -> None:
    """Write the base in float32, with the file that says how faces are cut: for `idgen prepare` and `idgen train`."""
    usage = usage_at(settings, settings.crops.size)
    _write_base(settings, folders["base"] / "final", folders["autoencoder"] / "final", usage, folders["pipeline"])


def usage_at(settings: config.Config, resolution: int) -> Usage:
    """How to use a base of this resolution that was trained on the captions of the training photos."""
    words = tuple(sorted(taught_words(open_labels(settings.stages["labels"], "train"))))
    return Usage(resolution=resolution, guidance_scale=GUIDANCE_SCALE, words=words, learning_rate=LEARNING_RATE)


def assemble(settings: config.Config, base: Path, output: Path) -> None:
    """Write the base of the model that is continued, with the autoencoder and the resolution of this one."""
    usage = replace(usage_of(str(base)), resolution=settings.crops.size)
    _write_base(settings, base, settings.stages["autoencoder"] / "final", usage, output)


def _write_base(settings: config.Config, base: Path, autoencoder: Path, usage: Usage, output: Path) -> None:
    networks = {
        "vae": AutoencoderTiny.from_pretrained(autoencoder, torch_dtype=torch.float32),
        "text_encoder": CLIPTextModel.from_pretrained(base / "text_encoder", dtype=torch.float32),
        "tokenizer": CLIPTokenizer.from_pretrained(base / "tokenizer"),
        "unet": UNet2DConditionModel.from_pretrained(base / "unet", torch_dtype=torch.float32),
    }
    write_pipeline(settings, networks, usage, output)


def write_pipeline(settings: config.Config, networks: Mapping[str, Any], usage: Usage, output: Path) -> None:
    """Write a pipeline of these networks, with the files that say how faces are cut and how the base is used."""
    build_pipeline(**networks).save_pretrained(output)
    framing = {"resolution": usage.resolution, "zoom": settings.crops.zoom, "rise": settings.crops.rise}
    for file, told in ((FRAMING, framing), (USAGE, asdict(usage))):
        (output / file).write_text(json.dumps(told, indent=2) + "\n")


def build_pipeline(**components: Any) -> StableDiffusionPipeline:
    """The pipeline of `vae`, `text_encoder`, `tokenizer` and `unet`."""
    nothing: dict[str, Any] = {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    return StableDiffusionPipeline(**components, scheduler=build_scheduler(), **nothing)  # pyright: ignore


def make_package(base: Path, adapter: Path, identity_net: Path, output: Path) -> None:
    """Write a base to `output`, and beside it to `adapter` its adapter with the IdentityNet, in float16.

    Older folders are replaced, each whole or not at all.
    """
    output = output.resolve()
    with _replacing(output) as new:
        pipeline = StableDiffusionPipeline.from_pretrained(base, local_files_only=True)
        pipeline.to(torch.float16).save_pretrained(new, safe_serialization=True)
        text_encoder = new / "text_encoder" / "config.json"  # diffusers opens it in the type of the pipeline
        text_encoder.write_text(json.dumps({**json.loads(text_encoder.read_text()), "dtype": "float32"}, indent=2))
        vae = new / "vae" / "config.json"  # diffusers writes a setting of AutoencoderTiny that it does not read
        vae.write_text(json.dumps({k: v for k, v in json.loads(vae.read_text()).items() if k != "block_out_channels"}))
        for file in (FRAMING, USAGE):
            shutil.copy(base / file, new)
        shutil.copy(CARD, new / "README.md")
    with _replacing(output.with_name("adapter")) as new:
        for kind, source, target in ((IdentityAdapter, adapter, new), (IdentityNet, identity_net / NET, new / NET)):
            module: Any = kind.from_pretrained(source)
            torch.nn.Module.to(module, torch.float16)
            module.save_pretrained(target)
        shutil.copy(ADAPTER_CARD, new / "README.md")


@contextmanager
def _replacing(folder: Path) -> Iterator[Path]:
    """A new folder that replaces another one when all is written; its files do not name local paths."""
    temporary = folder.with_name(f".{folder.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    yield temporary
    for file in (*temporary.rglob("config.json"), *temporary.glob("model_index.json")):
        table = json.loads(file.read_text())
        file.write_text(json.dumps({k: v for k, v in table.items() if k != "_name_or_path"}, indent=2) + "\n")
    shutil.rmtree(folder, ignore_errors=True)
    temporary.rename(folder)
