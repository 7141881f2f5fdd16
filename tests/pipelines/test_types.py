"""What type checkers see, which `make check` runs over this file."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import diffusers

from idgen import pipelines


def takes_both(pipe: pipelines.StableDiffusionXLPipeline, stock: diffusers.StableDiffusionXLPipeline) -> None:
    """Never called."""
    pipe("a face", num_inference_steps=3, id_embeds=[0.0], id_scale=0.5)
    pipe("a face", num_inference_steps=3, eta=0.5)
    pipe.load_id_adapter("folder", adapter_name="anna")
    pipe.set_id_adapter_scale({"down": 0.5})
    if TYPE_CHECKING:
        pipe.load_id_adapter("folder", adapter="anna")  # pyright: ignore[reportCallIssue]
        pipe.set_id_adapter_scale("strong")  # pyright: ignore[reportArgumentType]


def test_pipeline_classes_have_stock_and_identity_arguments() -> None:
    for name in pipelines.__all__:
        kind = getattr(pipelines, name)
        if name.startswith("StableDiffusion"):
            found = inspect.signature(kind.__call__).parameters
            assert {"prompt", "num_inference_steps", "id_image", "id_embeds"} <= set(found), name
