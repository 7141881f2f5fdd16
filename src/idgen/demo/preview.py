"""Small images of a picture that is being generated."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image

SIDE = 32
"""Maximum side of the latents that are decoded: larger ones are reduced first, so that a preview costs little."""


@torch.no_grad()
def preview(pipeline: Any, latents: torch.Tensor) -> Image.Image | None:
    """Decode noisy latents at a small size, several images side by side.

    Args:
        pipeline: A diffusers pipeline with a VAE.
        latents: (images, channels, height, width), as a callback of the pipeline gets them.

    Returns:
        The image, or None if the pipeline moves its parts between devices, which a preview would repeat at each step.
    """
    if getattr(pipeline, "_all_hooks", None):
        return None
    vae: Any = pipeline.vae
    small = latents[:, : vae.config.latent_channels]
    share = SIDE / max(small.shape[-2:])
    if share < 1:
        small = F.interpolate(small.float(), scale_factor=share, mode="area")
    small = small.to(vae.dtype) / vae.config.scaling_factor + (getattr(vae.config, "shift_factor", None) or 0)
    # some VAEs overflow in float16
    with torch.autocast(small.device.type, torch.bfloat16, enabled=vae.dtype == torch.float16):
        decoded = vae.decode(small).sample
    images = pipeline.image_processor.postprocess(decoded.float().cpu(), output_type="pil")
    width, height = images[0].size
    strip = Image.new("RGB", (width * len(images), height))
    for i, image in enumerate(images):
        strip.paste(image, (i * width, 0))
    return strip
