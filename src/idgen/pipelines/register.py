"""Adds the identity methods and arguments to diffusers' own pipelines, at `import idgen`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from diffusers.pipelines.pipeline_utils import DiffusionPipeline, StableDiffusionMixin

from ..adapter.state import deactivate_all
from .activation import activated
from .arguments import IdentityArguments, with_identity_arguments
from .editing import EditingMixin
from .from_pipe import wrap_from_pipe
from .mixin import IdentityAdapterMixin
from .running import lock_tokenizer, running


def register() -> None:
    """Change diffusers' Stable Diffusion pipelines, also those that are imported or defined later.

    No code of a pipeline is replaced: `__call__`, `encode_prompt` and `from_pipe` are wrapped, and the methods of
    `IdentityAdapterMixin` are added.
    """
    for name, member in {**vars(EditingMixin), **vars(IdentityAdapterMixin)}.items():
        if not name.startswith("__"):
            setattr(StableDiffusionMixin, name, member)
    StableDiffusionMixin.__init_subclass__ = classmethod(_wrap_subclass)  # pyright: ignore[reportAttributeAccessIssue]
    _wrap_all(StableDiffusionMixin)
    wrap_from_pipe(DiffusionPipeline)


def wrap_call(stock: Callable[..., Any]) -> Callable[..., Any]:
    """A pipeline class's `__call__` with the identity arguments.

    Without them no identity is active, also in a call inside a callback of another call.
    """
    signature = inspect.signature(stock)

    @functools.wraps(stock)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        if type(self).__call__ is not __call__:  # reached by super(): the subclass's own `__call__` is wrapped too
            return stock(self, *args, **kwargs)
        ours = IdentityArguments.pop_from(kwargs, signature)
        with ExitStack() as stack:
            stack.enter_context(running(self))
            stack.enter_context(deactivate_all())
            args, kwargs = stack.enter_context(activated(self, signature.bind(self, *args, **kwargs), ours))
            return stock(self, *args, **kwargs)

    wrapped: Any = __call__
    wrapped.__signature__ = with_identity_arguments(signature)
    wrapped.__doc__ = f"{inspect.getdoc(stock) or ''}\n\n{inspect.getdoc(IdentityArguments)}"
    return wrapped


def _wrap_subclass(cls: type, **kwargs: Any) -> None:
    super(StableDiffusionMixin, cls).__init_subclass__(**kwargs)  # pyright: ignore[reportArgumentType]
    _wrap(cls)


def _wrap_all(kind: type) -> None:
    for subclass in kind.__subclasses__():
        _wrap(subclass)
        _wrap_all(subclass)


def _wrap(kind: type) -> None:
    for name, wrap in (("__call__", wrap_call), ("encode_prompt", lock_tokenizer)):
        stock = next((vars(base)[name] for base in kind.__mro__ if name in vars(base)), None)
        if inspect.isfunction(stock) and not getattr(stock, "is_wrapped", False):
            wrapped: Any = wrap(stock)
            wrapped.is_wrapped = True
            setattr(kind, name, wrapped)


register()
