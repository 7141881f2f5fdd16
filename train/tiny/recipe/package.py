"""Stage 5: the averaged weights → a folder that `StableDiffusionPipeline.from_pretrained` opens."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import torch
from diffusers import AutoencoderTiny, StableDiffusionPipeline, UNet2DConditionModel
from diffusers.training_utils import EMAModel

from . import config
from .base import Model, build_scheduler

CARD = Path(__file__).with_name("card.md")


def make_package(settings: config.Config, autoencoder: Path, base: Path, joint: Path) -> None:
    """Write `paths.output` in float16, whole or not at all; an older one is replaced."""
    pipeline = build_pipeline(settings, autoencoder, base, joint).to(torch.float16)
    output = settings.paths.output.resolve()
    temporary = output.with_name(f".{output.name}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    pipeline.save_pretrained(temporary, safe_serialization=True)
    _open_in_float32(temporary / "text_encoder" / "config.json")
    shutil.copy(CARD, temporary / "README.md")
    shutil.rmtree(output, ignore_errors=True)
    temporary.rename(output)


def _open_in_float32(file: Path) -> None:
    """Let transformers open its half of the pipeline in the type that diffusers opens the other half in."""
    table = json.loads(file.read_text())
    file.write_text(json.dumps({**table, "dtype": "float32"}, indent=2) + "\n")


def build_pipeline(
    settings: config.Config, autoencoder: Path, base: Path, joint: Path | None = None
) -> StableDiffusionPipeline:
    """The pipeline of a finished or unfinished training, float32, with the averaged weights.

    Args:
        settings: Of the recipe.
        autoencoder: Its final weights.
        base: Folder of the base's training.
        joint: Folder of the training with the adapter, whose UNet goes before the base's.
    """
    vae = AutoencoderTiny.from_pretrained(autoencoder)
    model = Model(settings.base, settings.autoencoder.latent_channels, settings.crops.size // vae_factor(vae))
    state = torch.load(base / "state.pt", map_location="cpu", weights_only=True)
    average = EMAModel(model.parameters())
    average.load_state_dict(state["average"])
    average.copy_to(model.parameters())
    return StableDiffusionPipeline(
        vae=vae,
        text_encoder=model.text_encoder,
        tokenizer=model.tokenizer,
        unet=model.unet if joint is None else UNet2DConditionModel.from_pretrained(joint / "unet"),
        scheduler=build_scheduler(),
        safety_checker=None,  # type: ignore[arg-type]
        feature_extractor=None,  # type: ignore[arg-type]
        requires_safety_checker=False,
    )


def vae_factor(vae: AutoencoderTiny) -> int:
    """How much smaller latents are than pictures."""
    return 2 ** (len(vae.config.decoder_block_out_channels) - 1)
