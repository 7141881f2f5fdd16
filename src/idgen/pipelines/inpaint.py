"""Inpainting for base models with any number of latent channels; diffusers' own pipelines take 4 or 9."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import diffusers
import torch
import torch.nn.functional as F
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint import retrieve_latents
from diffusers.utils.torch_utils import randn_tensor

from .mixin import IdentityAdapterMixin

Callback: TypeAlias = Callable[..., dict[str, Any]]
"""A `callback_on_step_end` of diffusers."""


@contextmanager
def _without_overflow(vae: Any) -> Iterator[None]:
    """Compute in float32 inside the `with` if the activations of the VAE overflow float16, as SDXL's do."""
    before = vae.dtype
    if before != torch.float16 or not vae.config.get("force_upcast"):
        yield
        return
    vae.to(torch.float32)
    try:
        yield
    finally:
        vae.to(before)


@dataclass(frozen=True, eq=False)
class KeptLatents:
    """A `callback_on_step_end` that resets the latents outside of a mask to those of an image after each step.

    `StableDiffusionInpaintPipeline` does the same for a base model that was not trained for inpainting (RePaint
    without resampling, arXiv 2201.09865).

    Attributes:
        latents: (1, channels, height, width), of the image, scaled for the UNet.
        noise: As `latents`; it is added to them at each step but the last.
        mask: (1, 1, height, width), 1 where the latents may change.
        then: Another callback, which is called afterwards.
    """

    latents: torch.Tensor
    noise: torch.Tensor
    mask: torch.Tensor
    then: Callback | None = None

    @classmethod
    @torch.no_grad()
    def of(
        cls, pipeline: Any, image: Any, mask: torch.Tensor, generator: Any = None, then: Callback | None = None
    ) -> Self:
        """Encode an image.

        Args:
            pipeline: The pipeline that the callback is for.
            image: In any form that the pipeline takes, at the size of the output.
            mask: (1, 1, height, width) in [0, 1], white where the image changes, at the size of the latents or of
                the image, of which every pixel that belongs to a latent is then read.
            generator: A generator, or a list of them, of which the first is used.
            then: See the class.
        """
        vae, device = pipeline.vae, pipeline._execution_device
        pixels = pipeline.image_processor.preprocess(image).to(device)
        with _without_overflow(vae):
            found = retrieve_latents(vae.encode(pixels.to(vae.dtype)), sample_mode="argmax")
        found = found.to(pipeline.unet.dtype)
        kept = (found - (vae.config.get("shift_factor") or 0)) * vae.config["scaling_factor"]
        first = generator[0] if isinstance(generator, list) else generator
        noise = randn_tensor(kept.shape, generator=first, device=kept.device, dtype=kept.dtype)
        return cls(kept, noise, F.adaptive_max_pool2d(mask.to(kept), kept.shape[-2:]), then)

    def __call__(self, pipeline: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        """See `callback_on_step_end` in diffusers."""
        times, outside = pipeline.scheduler.timesteps, self.latents
        later = times[times < timestep]
        if len(later):
            outside = pipeline.scheduler.add_noise(self.latents, self.noise, later[:1])
        tensors["latents"] = self.mask * tensors["latents"] + (1 - self.mask) * outside
        return tensors if self.then is None else self.then(pipeline, step, timestep, tensors)


class LatentInpaintPipeline(IdentityAdapterMixin, diffusers.StableDiffusionImg2ImgPipeline):
    """Inpainting by image-to-image: after each step, latents outside of the mask are reset to those of the image."""

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        prompt: str | list[str] | None = None,
        image: Any = None,
        mask_image: Any = None,
        strength: float = 1.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        callback_on_step_end: Callback | None = None,
        **kwargs: Any,
    ) -> Any:
        """Inpaint the white area of the mask, and keep the rest of the image.

        Args:
            prompt: The prompt.
            image: The image, at the size of the output.
            mask_image: White where the image changes.
            strength: How much the masked area may change, in (0, 1].
            generator: As in diffusers.
            callback_on_step_end: As in diffusers.
            kwargs: Other arguments of `StableDiffusionImg2ImgPipeline`.

        Returns:
            As in diffusers.

        Raises:
            ValueError: `mask_image` is missing.
        """
        if mask_image is None:
            raise ValueError("mask_image is required; it is white where the image changes.")
        height, width = self.image_processor.preprocess(image).shape[-2:]
        painted = VaeImageProcessor(do_normalize=False, do_binarize=True, do_convert_grayscale=True)
        mask = painted.preprocess(mask_image, height, width)
        size = (height // self.vae_scale_factor, width // self.vae_scale_factor)
        mask = F.interpolate(mask, size, mode="nearest")
        keep = KeptLatents.of(self, image, mask, generator, callback_on_step_end)
        draw: Callable[..., Any] = super().__call__
        return draw(prompt, image=image, strength=strength, generator=generator, callback_on_step_end=keep, **kwargs)
