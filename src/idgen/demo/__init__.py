"""The demo: a page in the browser, and the same functions as an API (`idgen demo`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import MissingDependencyError

if TYPE_CHECKING:
    from .page import build_demo

__all__ = ["build_demo"]


def __getattr__(name: str) -> Any:
    """`build_demo` needs Gradio, and the command line does not."""
    if name != "build_demo":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    try:
        from .page import build_demo
    except ImportError as error:
        raise MissingDependencyError(f"The demo needs pip install 'idgen-diffusers[demo]' ({error}).") from error
    return build_demo
