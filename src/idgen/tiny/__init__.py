"""`idgen-tiny`: a small Stable Diffusion for faces of 64 px that ships with the package."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CheckpointError

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

TINY_PATH = Path(__file__).parent / "model"
"""The folder, in diffusers' layout: for whatever takes a path where others take a hub id."""

TINY_ADAPTER_PATH = Path(__file__).parent / "adapter"
"""Where the small model's own identity adapter lies, if this installation has one."""


def load_tiny() -> StableDiffusionPipeline:
    """Open `idgen-tiny`, without network, on the processor, in float32.

    Its model card (`TINY_PATH / "README.md"`) lists the prompts it knows. 25 steps with `guidance_scale=3` take
    well under two seconds on two cores.

    Raises:
        CheckpointError: The weights are not in this installation.

    Example:
        >>> load_tiny()("a pencil sketch of a face", num_inference_steps=25, guidance_scale=3).images[0]
    """
    from diffusers import StableDiffusionPipeline

    if not (TINY_PATH / "model_index.json").is_file():
        raise CheckpointError(
            f"idgen-tiny is not at '{TINY_PATH}'. Install idgen from a wheel, or train it: "
            "python train/tiny/train.py train/tiny/tiny.toml"
        )
    return StableDiffusionPipeline.from_pretrained(TINY_PATH, local_files_only=True)
