"""The pipelines of diffusers that an identity adapter can be loaded into."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from ..errors import AdapterError

if TYPE_CHECKING:
    from diffusers import DiffusionPipeline
    from diffusers.modular_pipelines import ModularPipeline

Pipeline: TypeAlias = "DiffusionPipeline | ModularPipeline"

TASKS = ("", "Img2Img", "Inpaint", "ControlNet", "ControlNetImg2Img", "ControlNetInpaint")
PAG = ("PAG", "PAGImg2Img", "PAGInpaint", "ControlNetPAG", "ControlNetPAGImg2Img", "ControlNetPAGInpaint")
SUPPORTED = frozenset(
    [
        *(f"StableDiffusion{xl}{task}Pipeline" for xl in ("", "XL") for task in TASKS + PAG + ("Adapter",)),
        *(f"StableDiffusionXLControlNetUnion{task}Pipeline" for task in ("", "Img2Img", "Inpaint")),
        "LatentConsistencyModelPipeline",
        "LatentConsistencyModelImg2ImgPipeline",
        "StableDiffusionXLModularPipeline",
    ]
)
"""Names of classes; their subclasses are supported too. All of them tell which half of a batch is the negative one,
and call the UNet with the whole image."""


def check_supported(pipeline: object) -> None:
    """Refuse a pipeline whose images could show a wrong person.

    Raises:
        AdapterError: The pipeline is not one of `SUPPORTED`.
    """
    names = {kind.__name__ for kind in type(pipeline).__mro__ if kind.__module__.startswith("diffusers.")}
    if not names & SUPPORTED:
        raise AdapterError(
            f"{type(pipeline).__name__} is not supported. Identity adapters can be loaded into SD1.5 and SDXL "
            "pipelines for text-to-image, image-to-image and inpainting, with or without ControlNet, T2I-Adapter or "
            "PAG, into latent consistency pipelines, Modular Diffusers' SDXL, and subclasses of these."
        )
