"""A TOML file, whose tables are the parts of a configuration → the configuration."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from types import UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from ..errors import TrainingError

Config = TypeVar("Config")


def from_toml(kind: type[Config], file: Path) -> Config:
    """Read a configuration from a TOML file whose tables are the parts of the dataclass.

    Raises:
        TrainingError: The file cannot be read, or holds a key that is not known or a value of the wrong type.
    """
    try:
        values = tomllib.loads(file.read_text())
    except (OSError, tomllib.TOMLDecodeError) as error:
        raise TrainingError(f"'{file}' could not be read as TOML: {error}") from error
    return _build(kind, values, str(file))


def _build(kind: Any, values: Any, where: str) -> Any:
    if not isinstance(values, dict):
        raise TrainingError(f"{where} is a table of settings, not {values!r}.")
    known, types = {f.name: f for f in dataclasses.fields(kind)}, get_type_hints(kind)
    if unknown := sorted(values.keys() - known.keys()):
        raise TrainingError(f"{where}: {', '.join(unknown)} is not known; known are {', '.join(known)}.")
    required = (f.name for f in known.values() if dataclasses.MISSING is f.default is f.default_factory)
    if missing := [name for name in required if name not in values]:
        raise TrainingError(f"{where}: {', '.join(missing)} is missing.")
    made = {}
    for name, value in values.items():
        if dataclasses.is_dataclass(types[name]):
            made[name] = _build(types[name], value, f"{where}, [{name}]")
        else:
            made[name] = _checked(types[name], value, f"{where}: {name}", str(known[name].type))
    return kind(**made)


def _checked(kind: Any, value: Any, where: str, said: str) -> Any:
    """The value in the type of its field."""
    for option in get_args(kind) if get_origin(kind) in (Union, UnionType) else (kind,):
        if get_origin(option) is Literal:
            if value in get_args(option):
                return value
        elif get_origin(option) is tuple:
            if isinstance(value, list) and all(isinstance(part, get_args(option)[0]) for part in value):
                return tuple(value)
        elif isinstance(value, bool):  # which Python counts among the numbers
            if option is bool:
                return value
        elif option is float and isinstance(value, int | float):
            return float(value)
        elif option is Path and isinstance(value, str):
            return Path(value)
        elif isinstance(value, option):
            return value
    raise TrainingError(f"{where} must be of type {said}, not {value!r}.")
