"""Adapters go along when diffusers makes a pipeline from another one."""

from __future__ import annotations

import functools
from dataclasses import replace
from typing import Any

from ..errors import AdapterError
from .loaded import LoadedAdapter
from .supported import check_supported


def hand_over(source: Any, target: Any) -> None:
    """Let a pipeline have the adapters of the one it was made from, if its kind and its UNet allow it."""
    loaded: dict[str, LoadedAdapter] = getattr(source, "_loaded_adapters", {})
    if not loaded or getattr(target, "unet", None) is None:
        return
    try:
        check_supported(target)
        for each in loaded.values():
            if not each.adapter.is_attached_to(target.unet):
                each.adapter.attach(target.unet)
    except AdapterError:
        return  # its calls refuse identity arguments
    target._loaded_adapters = {name: replace(each) for name, each in loaded.items()}
    if "_id_blocklist" in source.__dict__:
        target.__dict__["_id_blocklist"] = source.__dict__["_id_blocklist"]


def register_auto_pipelines() -> None:
    """Hand adapters over in `from_pipe` of `AutoPipeline…`, which takes long to import: only with an adapter."""
    from diffusers import AutoPipelineForImage2Image, AutoPipelineForInpainting, AutoPipelineForText2Image

    for auto in (AutoPipelineForText2Image, AutoPipelineForImage2Image, AutoPipelineForInpainting):
        hand_over_from_pipe(auto)


def hand_over_from_pipe(kind: Any) -> None:
    """Wrap the class method `from_pipe` of a class, once."""
    stock = kind.__dict__["from_pipe"].__func__
    if getattr(stock, "hands_over", False):
        return

    @functools.wraps(stock)
    def from_pipe(cls: type, pipeline: Any, **kwargs: Any) -> Any:
        made = stock(cls, pipeline, **kwargs)
        hand_over(pipeline, made)
        return made

    marked: Any = from_pipe
    marked.hands_over = True
    kind.from_pipe = classmethod(marked)
