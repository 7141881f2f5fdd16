"""diffusers' pipelines with the identity methods known to type checkers: drop-in imports under the same names."""

import diffusers

from .mixin import IdentityAdapterMixin


class StableDiffusionPipeline(IdentityAdapterMixin, diffusers.StableDiffusionPipeline):
    """Text to image, SD1.5."""


class StableDiffusionImg2ImgPipeline(IdentityAdapterMixin, diffusers.StableDiffusionImg2ImgPipeline):
    """Image to image, SD1.5."""


class StableDiffusionInpaintPipeline(IdentityAdapterMixin, diffusers.StableDiffusionInpaintPipeline):
    """Inpainting, SD1.5."""


class StableDiffusionControlNetPipeline(IdentityAdapterMixin, diffusers.StableDiffusionControlNetPipeline):
    """Text to image with ControlNet, SD1.5."""


class StableDiffusionControlNetImg2ImgPipeline(
    IdentityAdapterMixin, diffusers.StableDiffusionControlNetImg2ImgPipeline
):
    """Image to image with ControlNet, SD1.5."""


class StableDiffusionControlNetInpaintPipeline(
    IdentityAdapterMixin, diffusers.StableDiffusionControlNetInpaintPipeline
):
    """Inpainting with ControlNet, SD1.5."""


class StableDiffusionXLPipeline(IdentityAdapterMixin, diffusers.StableDiffusionXLPipeline):
    """Text to image, SDXL."""


class StableDiffusionXLImg2ImgPipeline(IdentityAdapterMixin, diffusers.StableDiffusionXLImg2ImgPipeline):
    """Image to image, SDXL."""


class StableDiffusionXLInpaintPipeline(IdentityAdapterMixin, diffusers.StableDiffusionXLInpaintPipeline):
    """Inpainting, SDXL."""


class StableDiffusionXLControlNetPipeline(IdentityAdapterMixin, diffusers.StableDiffusionXLControlNetPipeline):
    """Text to image with ControlNet, SDXL."""


class StableDiffusionXLControlNetImg2ImgPipeline(
    IdentityAdapterMixin, diffusers.StableDiffusionXLControlNetImg2ImgPipeline
):
    """Image to image with ControlNet, SDXL."""


class StableDiffusionXLControlNetInpaintPipeline(
    IdentityAdapterMixin, diffusers.StableDiffusionXLControlNetInpaintPipeline
):
    """Inpainting with ControlNet, SDXL."""
