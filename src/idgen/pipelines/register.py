"""Gives diffusers' own pipelines the identity methods and arguments, at `import idgen`."""

from __future__ import annotations

import inspect
from typing import Any

from diffusers.pipelines.pipeline_utils import DiffusionPipeline, StableDiffusionMixin

from .guarded import guarded
from .hand_over import hand_over_from_pipe
from .mixin import IdentityAdapterMixin
from .running import encoding_alone


def register() -> None:
    """Change diffusers: its Stable Diffusion pipelines, also those that are imported or defined later.

    Nothing of a pipeline's code is replaced. Its `__call__` (see `guarded`) and `encode_prompt` are wrapped,
    `from_pipe` hands adapters over, and the methods of `IdentityAdapterMixin` are added.
    """
    for name, member in vars(IdentityAdapterMixin).items():
        if not name.startswith("__"):
            setattr(StableDiffusionMixin, name, member)
    StableDiffusionMixin.__init_subclass__ = classmethod(_guard_subclass)  # pyright: ignore[reportAttributeAccessIssue]
    _guard_all(StableDiffusionMixin)
    hand_over_from_pipe(DiffusionPipeline)


def _guard_subclass(cls: type, **kwargs: Any) -> None:
    super(StableDiffusionMixin, cls).__init_subclass__(**kwargs)  # pyright: ignore[reportArgumentType]
    _guard(cls)


def _guard_all(kind: type) -> None:
    for subclass in kind.__subclasses__():
        _guard(subclass)
        _guard_all(subclass)


def _guard(kind: Any) -> None:
    for name, wrap in (("__call__", guarded), ("encode_prompt", encoding_alone)):
        stock = next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)
        if inspect.isfunction(stock) and not getattr(stock, "is_guarded", False):
            setattr(kind, name, wrap(stock))
