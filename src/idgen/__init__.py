"""Put one person's face into Stable Diffusion images.

Importing the package gives diffusers' pipelines `load_id_adapter`, and switches off the usage reports of the libraries
that it uses. Modules are imported when they are used: torch and diffusers take seconds.
"""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

from . import telemetry  # first: libraries read their switches when they are imported
from .import_hook import after_import

if TYPE_CHECKING:
    from .adapter import IdentityAdapter, IdentityNet, ScaleSchedule
    from .enrollment import enroll
    from .faces import FaceAnalyzer
    from .identity import Identity
    from .tiny import load_tiny

__all__ = [
    "FaceAnalyzer",
    "Identity",
    "IdentityAdapter",
    "IdentityNet",
    "ScaleSchedule",
    "enroll",
    "load_tiny",
    "telemetry",
]

_MODULES = {
    "FaceAnalyzer": "faces",
    "Identity": "identity",
    "IdentityAdapter": "adapter",
    "IdentityNet": "adapter",
    "ScaleSchedule": "adapter",
    "enroll": "enrollment",
    "load_tiny": "tiny",
}
_SUBMODULES = ("adapter", "errors", "faces", "losses", "pipelines", "provenance", "rewards", "tiny")


def __getattr__(name: str) -> object:
    """Import a name of `__all__` or a submodule at its first use (PEP 562)."""
    if name in _SUBMODULES:
        return import_module(f".{name}", __name__)
    if name not in _MODULES:
        raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
    value = getattr(import_module(f".{_MODULES[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__, *_SUBMODULES})


after_import("diffusers.pipelines.pipeline_utils", lambda: import_module(".pipelines", __name__))
