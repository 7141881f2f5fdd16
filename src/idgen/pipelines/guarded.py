"""A pipeline's `__call__` with identity arguments, which concern this call alone."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from ..adapter import nothing_active
from .arguments import IdentityArguments, with_identity_arguments
from .conditioning import conditioned
from .running import running


def guarded(stock: Callable[..., Any]) -> Callable[..., Any]:
    """Give a pipeline class's `__call__` our arguments.

    A call that names no person draws none, also inside a callback of a call that does.
    """
    signature = inspect.signature(stock)

    @functools.wraps(stock)
    def __call__(self: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N807
        if type(self).__call__ is not __call__:  # reached by super(): a subclass's own `__call__` is guarded too
            return stock(self, *args, **kwargs)
        ours = IdentityArguments.taken_from(kwargs, signature)
        with ExitStack() as stack:
            stack.enter_context(running(self))
            stack.enter_context(nothing_active())
            args, kwargs = stack.enter_context(conditioned(self, signature.bind(self, *args, **kwargs), ours))
            return stock(self, *args, **kwargs)

    marked: Any = __call__
    marked.__signature__ = with_identity_arguments(signature)
    marked.__doc__ = f"{inspect.getdoc(stock) or ''}\n\n{inspect.getdoc(IdentityArguments)}"
    marked.is_guarded = True
    return marked
