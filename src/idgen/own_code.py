"""Functions and classes of the user, by name. Only the user names them; names in files are never executed."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from types import ModuleType
from typing import Any

from .errors import IdgenError


def load_object(where: str, error: type[IdgenError] = IdgenError) -> Any:
    """An object of a Python file or module, whose code is executed.

    Args:
        where: "FILE.py:NAME" or "MODULE:NAME".
        error: Class of the error.

    Raises:
        IdgenError: The file, the module or the object does not exist.
    """
    place, _, name = where.rpartition(":")
    module = _run_file(Path(place)) if place.endswith(".py") else _import(place)
    if module is None:
        raise error(f"'{where}' names no existing Python file or module; write FILE.py:NAME or MODULE:NAME.")
    if not callable(found := getattr(module, name, None)):
        raise error(f"'{place}' has no function or class '{name}'.")
    return found


def _run_file(file: Path) -> ModuleType | None:
    spec = importlib.util.spec_from_file_location(file.stem, file)
    if spec is None or spec.loader is None or not file.is_file():
        return None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _import(name: str) -> ModuleType | None:
    """Errors inside of an existing module are its own, and pass."""
    try:
        return importlib.import_module(name)
    except (ModuleNotFoundError, ValueError) as error:
        if isinstance(error, ModuleNotFoundError) and error.name not in {name, name.partition(".")[0]}:
            raise
        return None
