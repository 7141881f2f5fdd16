"""Inpainting for base models with any number of latent channels; diffusers' own pipelines take 4 or 9."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import diffusers
import torch
import torch.nn.functional as F
from diffusers.image_processor import VaeImageProcessor
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion_inpaint import retrieve_latents
from diffusers.utils.torch_utils import randn_tensor

from .mixin import IdentityAdapterMixin


class LatentInpaintPipeline(IdentityAdapterMixin, diffusers.StableDiffusionImg2ImgPipeline):
    """Inpainting by image-to-image: after each step, latents outside of the mask are reset to those of the image.

    `StableDiffusionInpaintPipeline` does the same for a base model that was not trained for inpainting (RePaint
    without resampling, arXiv 2201.09865).
    """

    def __call__(  # pyright: ignore[reportIncompatibleMethodOverride]
        self,
        prompt: str | list[str] | None = None,
        image: Any = None,
        mask_image: Any = None,
        strength: float = 1.0,
        generator: torch.Generator | list[torch.Generator] | None = None,
        callback_on_step_end: Callable[..., dict[str, Any]] | None = None,
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
        picture = self.image_processor.preprocess(image).to(self._execution_device, self.vae.dtype)
        with torch.no_grad():
            kept = retrieve_latents(self.vae.encode(picture), sample_mode="argmax") * self.vae.config.scaling_factor
        painted = VaeImageProcessor(do_normalize=False, do_binarize=True, do_convert_grayscale=True)
        mask = painted.preprocess(mask_image, picture.shape[-2], picture.shape[-1]).to(kept)
        mask = F.interpolate(mask, kept.shape[-2:], mode="nearest")
        first = generator[0] if isinstance(generator, list) else generator
        noise = randn_tensor(kept.shape, generator=first, device=kept.device, dtype=kept.dtype)

        def keep(pipe: Any, step: int, timestep: Any, tensors: dict[str, Any]) -> dict[str, Any]:
            times = pipe.scheduler.timesteps
            later = times[times < timestep]
            outside = kept
            if len(later):
                outside = pipe.scheduler.add_noise(kept, noise, later[:1])
            tensors["latents"] = mask * tensors["latents"] + (1 - mask) * outside
            return tensors if callback_on_step_end is None else callback_on_step_end(pipe, step, timestep, tensors)

        draw: Callable[..., Any] = super().__call__
        return draw(prompt, image=image, strength=strength, generator=generator, callback_on_step_end=keep, **kwargs)
