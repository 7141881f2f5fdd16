"""The image-to-image pipeline of the parts of another one."""

from __future__ import annotations

from typing import Any

from torch import nn

from ..errors import AdapterError


def image_to_image(pipeline: Any, controlnet: nn.Module | None = None) -> Any:
    """Make an image-to-image pipeline with the networks and adapters of a pipeline.

    Args:
        pipeline: A Stable Diffusion pipeline for any task.
        controlnet: Its only ControlNet.

    Returns:
        An inpainting pipeline for a UNet with nine channels, which cannot do image-to-image.

    Raises:
        AdapterError: diffusers has no such pipeline.
    """
    from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting

    family: Any = AutoPipelineForInpainting if pipeline.unet.config.in_channels == 9 else AutoPipelineForImage2Image
    options: dict[str, Any] = {"dtype": pipeline.unet.dtype}  # from_pipe converts to float32 by default
    if controlnet is not None:
        options["controlnet"] = nn.Module.to(controlnet, pipeline.device, pipeline.unet.dtype)
    elif getattr(pipeline, "controlnet", None) is not None:
        options["controlnet"] = None
    try:
        made = family.from_pipe(pipeline, **options)
    except ValueError as error:
        raise AdapterError(f"{type(pipeline).__name__} cannot edit pictures: {error}") from error
    made.set_progress_bar_config(**getattr(pipeline, "_progress_bar_config", {}))
    return made
