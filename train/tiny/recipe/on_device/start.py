"""What the trainings continue: base, adapter and IdentityNet, for latents of more channels if they have less."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from diffusers import AutoencoderTiny, UNet2DConditionModel
from transformers import CLIPTextModel

from idgen import IdentityAdapter, IdentityNet
from idgen.convert import NET

from ..base import build_scheduler
from ..details import widen_autoencoder, widen_net, widen_unet
from ..device import place
from .person import Person

BASE, ADAPTER = "base", "adapter"
"""Folders in the pack."""
CHANNELS, FINE = 16, 8
"""Latent channels, and how many of them hold details; they are added to a model that has none."""


def open_person(pack: Path) -> Person:
    """Base and adapter, on the device."""
    unet: Any = UNet2DConditionModel.from_pretrained(pack / BASE / "unet", torch_dtype=torch.float32)
    text: Any = CLIPTextModel.from_pretrained(pack / BASE / "text_encoder", dtype=torch.float32)
    adapter = IdentityAdapter.from_pretrained(pack / ADAPTER).float()
    wide = widen_unet(unet, CHANNELS)
    return place(Person(wide, text, adapter, build_scheduler().alphas_cumprod, text.config.bos_token_id))


def open_autoencoder(pack: Path, pictures: torch.Tensor) -> Any:
    """The autoencoder, on the device; `pictures` (n, 3, side, side) in [0, 1] say which details its latents miss."""
    given = AutoencoderTiny.from_pretrained(pack / BASE / "vae", torch_dtype=torch.float32)
    return place(widen_autoencoder(given, pictures.cpu(), FINE) if lacks_details(given) else given)


def open_net(pack: Path) -> IdentityNet:
    """The IdentityNet, on the device."""
    given: Any = IdentityNet.from_pretrained(pack / ADAPTER / NET).float()
    return place(widen_net(given, CHANNELS))


def lacks_details(autoencoder: Any) -> bool:
    """Whether the latents have no channels for details yet."""
    return autoencoder.config["latent_channels"] < CHANNELS
