"""The demo: a Gradio app in the browser, and its functions as an API (`idgen demo`)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import MissingDependencyError

if TYPE_CHECKING:
    from .app import build_demo

__all__ = ["build_demo"]


def __getattr__(name: str) -> Any:
    """Import `build_demo` when it is used: it needs Gradio, which is optional."""
    if name != "build_demo":
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    try:
        from .app import build_demo
    except ImportError as error:
        raise MissingDependencyError(f"The demo needs pip install 'idgen-diffusers[demo]' ({error}).") from error
    return build_demo
