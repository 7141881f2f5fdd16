"""Opens base models, for inference and for training."""

from __future__ import annotations

from typing import Any

from .errors import CheckpointError
from .library_logs import quiet_libraries
from .names import BASES, nearest, nearest_path
from .tiny import load_tiny_base


def open_base(name: str, dtype: Any) -> Any:
    """Open a text-to-image pipeline.

    Args:
        name: A folder, a hub id, or `"tiny"`, the built-in model, which is in float32.
        dtype: Dtype of the networks; a mapping gives each its own, as in diffusers.

    Raises:
        CheckpointError: It does not exist, cannot be reached, or is not such a pipeline.
    """
    if name == "tiny":
        return load_tiny_base()
    try:
        with quiet_libraries():
            from diffusers import AutoPipelineForText2Image

            return AutoPipelineForText2Image.from_pretrained(name, torch_dtype=dtype)
    except (OSError, ValueError) as error:
        near = nearest(name, BASES) or nearest_path(name)
        raise CheckpointError(
            f"The base model '{name}' could not be opened: it is neither a folder of a Stable Diffusion pipeline nor "
            f"a reachable hub repository.{near} ({type(error).__name__}: {error})"
        ) from error
