"""Check plain values, as JSON and TOML hold them, against the annotations of functions and dataclasses."""

from __future__ import annotations

import collections.abc
import dataclasses
import inspect
from collections.abc import Callable, Mapping
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from .errors import IdgenError

_SEQUENCES = (list, tuple, collections.abc.Sequence)
_MAPPINGS = (dict, collections.abc.Mapping)
_NOTHING = object()


def arguments(function: Callable[..., Any], values: Any, where: str, error: type[IdgenError]) -> dict[str, Any]:
    """Check values by name against the annotations of a function, a class or a dataclass.

    Args:
        function: Function that the values are arguments of. A mapping for a dataclass argument becomes that dataclass.
        values: A mapping.
        where: Source of the values, for the error message.
        error: Type of error to raise.

    Returns:
        The arguments. Numbers become `float`, and lists become tuples, as annotated.

    Raises:
        IdgenError: A name is unknown or missing, or a value has the wrong type.
    """
    if not isinstance(values, Mapping):
        raise error(f"{where} must be a table of settings, not {_short(values)}.")
    known = {name: parameter for name, parameter in inspect.signature(function).parameters.items() if name != "self"}
    if unknown := sorted(str(name) for name in values.keys() - known.keys()):
        raise error(f"{where}: {', '.join(map(_short, unknown))} is not known; known are {', '.join(known)}.")
    if missing := [name for name, p in known.items() if p.default is p.empty and name not in values]:
        raise error(f"{where}: {', '.join(missing)} is missing.")
    types = hints(function)
    return {name: check(types[name], value, where, name, error) for name, value in values.items()}


def hints(function: Callable[..., Any]) -> dict[str, Any]:
    """The argument types of a function, a class or a dataclass."""
    return get_type_hints(function.__init__ if inspect.isclass(function) else function)


def check(kind: Any, value: Any, where: str, name: str, error: type[IdgenError]) -> Any:
    """Convert one value to the type of its annotation; arguments and errors are those of `arguments`."""
    if _is_dataclass(kind) or (get_origin(kind) is UnionType and all(map(_is_dataclass, get_args(kind)))):
        where = f"{where}, [{name}]"
        kind = kind if _is_dataclass(kind) else _variant(kind, value, where, error)
        return kind(**arguments(kind, value, where, error))
    found = _as(kind, value)
    if found is _NOTHING:
        said = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "").replace("pathlib.", "")
        raise error(f"{where}: {name} must be of type {said}, not {_short(value)}.")
    return found


def _is_dataclass(kind: Any) -> bool:
    return dataclasses.is_dataclass(kind) and isinstance(kind, type)


def _variant(kinds: Any, value: Any, where: str, error: type[IdgenError]) -> Any:
    """Choose the dataclass of a table by a field that has another value in each of them; the first by default."""
    first, *_ = options = get_args(kinds)
    tag = next(name for name, kind in hints(first).items() if get_origin(kind) is Literal)
    named = {hints(option)[tag].__args__[0]: option for option in options}
    chosen = value.get(tag) if isinstance(value, Mapping) else None
    if chosen is not None and (not isinstance(chosen, str) or chosen not in named):
        raise error(f"{where}: {tag} must be one of {', '.join(named)}, not {_short(chosen)}.")
    return first if chosen is None else named[chosen]


def _as(kind: Any, value: Any) -> Any:
    """The value as this type, or `_NOTHING` if it has another one."""
    origin, inner = get_origin(kind), get_args(kind)
    if kind is Any:
        return value
    if origin in (Union, UnionType):
        return next((found for option in inner if (found := _as(option, value)) is not _NOTHING), _NOTHING)
    if origin is Literal:
        return value if any(value == option and type(value) is type(option) for option in inner) else _NOTHING
    if (origin or kind) in _SEQUENCES:
        if not isinstance(value, list | tuple):
            return _NOTHING
        parts = [_as(inner[0], part) if inner else part for part in value]
        made: Any = parts if (origin or kind) is list else tuple(parts)
        return _NOTHING if any(part is _NOTHING for part in parts) else made
    if (origin or kind) in _MAPPINGS:
        if not isinstance(value, Mapping):
            return _NOTHING
        table = {_as(inner[0], k): _as(inner[1], v) for k, v in value.items()} if inner else dict(value)
        return _NOTHING if _NOTHING in table or any(part is _NOTHING for part in table.values()) else table
    if isinstance(value, bool):  # a subclass of int in Python
        return value if kind is bool else _NOTHING
    if kind is float and isinstance(value, int):
        return float(value) if abs(value) < 1 << 53 else _NOTHING
    if isinstance(kind, type) and isinstance(value, kind):
        return value
    return Path(value) if kind is Path and isinstance(value, str) else _NOTHING


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
