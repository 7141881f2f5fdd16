"""The VAE of a base model: opening it alone, and encoding images."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from .errors import CheckpointError
from .tiny import base_place


def open_vae(base: str) -> Any:
    """The VAE of a base model, on the fastest device of this machine.

    Args:
        base: A folder, a hub id, or "tiny".

    Raises:
        CheckpointError: It cannot be opened.
    """
    from diffusers import AutoModel

    try:
        vae: Any = AutoModel.from_pretrained(base_place(base), subfolder="vae")
    except (OSError, ValueError) as error:
        raise CheckpointError(f"The vae of '{base}' could not be opened: {error}") from error
    return vae.to(fastest_device())


def fastest_device() -> torch.device:
    """The accelerator of this machine if there is one, otherwise the CPU."""
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return found or torch.device("cpu")


@torch.no_grad()
def encode_images(vae: Any, images: np.ndarray) -> torch.Tensor:
    """(n, height, width, 3) uint8 → latents scaled for the UNet, (n, channels, h, w), float32."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).to(vae.device, vae.dtype) / 127.5 - 1
    encoded = vae.encode(pixels)
    latents = encoded.latent_dist.mode() if hasattr(encoded, "latent_dist") else encoded.latents
    return ((latents - (vae.config.get("shift_factor") or 0)) * vae.config["scaling_factor"]).float().cpu()
