"""Identity adapters in diffusers pipelines.

Importing this package changes diffusers' pipelines; see `register`. The pipeline classes are imported when they are
first used, since diffusers may not have finished importing their base classes.
"""

from importlib import import_module
from typing import TYPE_CHECKING

from .arguments import IdentityArguments
from .editing import EditingMixin
from .face_crop import EditedPicture
from .mixin import IdentityAdapterMixin
from .register import register

if TYPE_CHECKING:
    from .inpaint import LatentInpaintPipeline
    from .stable_diffusion import (
        StableDiffusionControlNetImg2ImgPipeline,
        StableDiffusionControlNetInpaintPipeline,
        StableDiffusionControlNetPipeline,
        StableDiffusionImg2ImgPipeline,
        StableDiffusionInpaintPipeline,
        StableDiffusionPipeline,
        StableDiffusionXLControlNetImg2ImgPipeline,
        StableDiffusionXLControlNetInpaintPipeline,
        StableDiffusionXLControlNetPipeline,
        StableDiffusionXLImg2ImgPipeline,
        StableDiffusionXLInpaintPipeline,
        StableDiffusionXLPipeline,
    )

__all__ = [
    "EditedPicture",
    "EditingMixin",
    "IdentityAdapterMixin",
    "IdentityArguments",
    "LatentInpaintPipeline",
    "StableDiffusionControlNetImg2ImgPipeline",
    "StableDiffusionControlNetInpaintPipeline",
    "StableDiffusionControlNetPipeline",
    "StableDiffusionImg2ImgPipeline",
    "StableDiffusionInpaintPipeline",
    "StableDiffusionPipeline",
    "StableDiffusionXLControlNetImg2ImgPipeline",
    "StableDiffusionXLControlNetInpaintPipeline",
    "StableDiffusionXLControlNetPipeline",
    "StableDiffusionXLImg2ImgPipeline",
    "StableDiffusionXLInpaintPipeline",
    "StableDiffusionXLPipeline",
    "register",
]


def __getattr__(name: str) -> object:
    """Import a pipeline class at its first use (PEP 562)."""
    if name not in __all__:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    module = import_module(".inpaint" if name == "LatentInpaintPipeline" else ".stable_diffusion", __name__)
    globals()[name] = value = getattr(module, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
