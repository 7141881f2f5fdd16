"""`idgen-tiny`: a small Stable Diffusion for faces of 128 px, and its identity adapter, that ship with the package."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from ..files import read_json

if TYPE_CHECKING:
    from diffusers import StableDiffusionPipeline

TINY_PATH = Path(__file__).parent / "model"
"""The folder of the model, in diffusers' format, for functions that take a path or hub id."""

TINY_ADAPTER_PATH = Path(__file__).parent / "adapter"
"""The folder of its identity adapter."""

TINY_IDENTITY_NET_PATH = TINY_ADAPTER_PATH / "identity_net"
"""The folder of its IdentityNet."""


def base_place(base: str) -> str:
    """A folder or hub id of a base model, given the same or `"tiny"`, the built-in model."""
    return str(TINY_PATH) if base == "tiny" else base


def adapter_place(adapter: str | os.PathLike[str]) -> str:
    """A folder, file or hub id of an adapter, given the same or `"tiny"`, the built-in adapter."""
    name = os.fspath(adapter)
    return str(TINY_ADAPTER_PATH) if name == "tiny" else name


def load_tiny(*, inpaint: bool = False) -> StableDiffusionPipeline:
    """Load `idgen-tiny` with its identity adapter, offline, on the CPU, in float32.

    The model card (`TINY_PATH / "README.md"`) lists the prompts that it was trained on. 25 steps with
    `guidance_scale=3` take less than two seconds on two cores.

    Args:
        inpaint: Whether to load it as a `LatentInpaintPipeline`. diffusers' own inpainting does not support it.

    Raises:
        CheckpointError: The weights are not installed.

    Example:
        >>> load_tiny()("a pencil sketch of <id>", id_image="photo.jpg", guidance_scale=3).images[0]
    """
    from ..library_logs import quiet_libraries

    with quiet_libraries():
        pipeline: Any = load_tiny_base()
        if inpaint:
            from ..pipelines.inpaint import LatentInpaintPipeline

            pipeline = LatentInpaintPipeline(**pipeline.components, requires_safety_checker=False)
        pipeline.load_id_adapter(_installed(TINY_ADAPTER_PATH, "config.json"))
    return pipeline


def load_tiny_base() -> StableDiffusionPipeline:
    """Load `idgen-tiny` without an adapter.

    Raises:
        CheckpointError: The weights are not installed.
    """
    from ..library_logs import quiet_libraries

    folder = _installed(TINY_PATH, "model_index.json")
    with quiet_libraries():
        from diffusers import StableDiffusionPipeline

        return StableDiffusionPipeline(**_components(folder), requires_safety_checker=False)


def _components(folder: Path) -> dict[str, Any]:
    """The components of a pipeline's folder by name.

    `from_pretrained` of the pipeline would warn of the small autoencoder, which is not the class it expects.
    """
    listed = {name: place for name, place in read_json(folder / "model_index.json").items() if isinstance(place, list)}
    return {
        name: kind and getattr(import_module(library), kind).from_pretrained(folder / name, local_files_only=True)
        for name, (library, kind) in listed.items()
    }


def _installed(folder: Path, file: str) -> Path:
    if not (folder / file).is_file():
        raise CheckpointError(
            f"idgen-tiny is not at '{folder}'. Install idgen from a wheel, or train it: "
            "python train/tiny/train.py train/tiny/tiny.toml"
        )
    return folder
