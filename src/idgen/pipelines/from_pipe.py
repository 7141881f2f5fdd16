"""`from_pipe` keeps the adapters of the pipeline that a new one is made from."""

from __future__ import annotations

import functools
import sys
from dataclasses import replace
from types import ModuleType
from typing import Any

from ..errors import AdapterError
from ..import_hook import after_import
from .loaded import LoadedAdapter
from .supported import Pipeline, check_supported

AUTO_PIPELINES = "diffusers.pipelines.auto_pipeline"


def copy_adapters(source: Pipeline, target: Pipeline) -> None:
    """Load the adapters of one pipeline into another, if the other is supported and its UNet fits."""
    loaded: dict[str, LoadedAdapter] = getattr(source, "_loaded_adapters", {})
    if not loaded or getattr(target, "unet", None) is None:
        return
    try:
        check_supported(target)
        for each in loaded.values():
            if not each.adapter.is_attached_to(target.unet):
                each.adapter.attach(target.unet)
    except AdapterError:
        return  # calls of the target refuse identity arguments
    target.__dict__["_loaded_id_adapters"] = {name: replace(each) for name, each in loaded.items()}
    if "_id_blocklist" in source.__dict__:
        target.__dict__["_id_blocklist"] = source.__dict__["_id_blocklist"]


@functools.cache
def wrap_auto_pipelines() -> None:
    """Wrap `from_pipe` of the `AutoPipeline…` classes once they are imported, which is slow."""
    after_import(AUTO_PIPELINES, lambda: _wrap_classes(sys.modules[AUTO_PIPELINES]))


def _wrap_classes(module: ModuleType) -> None:
    for task in ("Text2Image", "Image2Image", "Inpainting"):
        wrap_from_pipe(getattr(module, f"AutoPipelineFor{task}"))


def wrap_from_pipe(kind: Any) -> None:
    """Make the class method `from_pipe` of a class copy adapters. Wrapping again has no effect."""
    stock = kind.__dict__["from_pipe"].__func__
    if getattr(stock, "is_wrapped", False):
        return

    @functools.wraps(stock)
    def from_pipe(cls: type, pipeline: Any, **kwargs: Any) -> Any:
        made = stock(cls, pipeline, **kwargs)
        copy_adapters(pipeline, made)
        return made

    wrapped: Any = from_pipe
    wrapped.is_wrapped = True
    kind.from_pipe = classmethod(wrapped)
