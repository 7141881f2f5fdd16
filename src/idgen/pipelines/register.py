"""Gives diffusers' own pipelines `load_id_adapter`, at `import idgen`."""

from __future__ import annotations

from functools import cache
from typing import Any

from diffusers.pipelines.pipeline_utils import StableDiffusionMixin

from .mixin import IdentityAdapterMixin


@cache
def with_identity(stock_class: type) -> type:
    """The pipeline class with `IdentityAdapterMixin`, under the same name: so what `save_pretrained` writes opens in
    plain diffusers, and `AutoPipeline` finds its twins."""
    namespace = {"__module__": stock_class.__module__, "__doc__": stock_class.__doc__, "_stock_class": stock_class}
    return type(stock_class.__name__, (IdentityAdapterMixin, stock_class), namespace)


def load_id_adapter(pipeline: Any, *args: Any, **kwargs: Any) -> None:
    """Load an identity adapter into a stock pipeline; see `IdentityAdapterMixin.load_id_adapter`."""
    stock_class = type(pipeline)
    pipeline.__class__ = with_identity(stock_class)
    try:
        pipeline.load_id_adapter(*args, **kwargs)
    except BaseException:
        pipeline.__class__ = stock_class
        pipeline.__dict__.pop("_loaded_id_adapters", None)
        raise


def register() -> None:
    """The one line that touches diffusers."""
    StableDiffusionMixin.load_id_adapter = load_id_adapter  # pyright: ignore[reportAttributeAccessIssue]
