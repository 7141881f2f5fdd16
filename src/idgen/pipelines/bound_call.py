"""The arguments of a pipeline call, by name."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any


def with_defaults(bound: inspect.BoundArguments) -> dict[str, Any]:
    """All arguments of a call by name, with defaults."""
    full = inspect.BoundArguments(bound.signature, bound.arguments.copy())  # pyright: ignore[reportArgumentType]
    full.apply_defaults()
    arguments = dict(full.arguments)
    for parameter in bound.signature.parameters.values():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            arguments |= arguments.pop(parameter.name)
    state = arguments.get("state")  # of Modular Diffusers, where a call continues with the values of another
    return {**getattr(state, "values", {}), **arguments}


def replace_arguments(bound: inspect.BoundArguments, changed: Mapping[str, Any]) -> None:
    """Put changed arguments into a call, by name or among its other keywords."""
    rest = next((p.name for p in bound.signature.parameters.values() if p.kind is inspect.Parameter.VAR_KEYWORD), "")
    for name, value in changed.items():
        if name in bound.signature.parameters:
            bound.arguments[name] = value
        else:
            bound.arguments[rest] = {**bound.arguments.get(rest, {}), name: value}
