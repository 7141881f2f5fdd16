"""The configuration of a projection: its type in `PROJECTIONS`, and its sizes."""

from __future__ import annotations

import inspect
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import AdapterError
from ..typed import check, hints
from .projections import PROJECTIONS, ProjectionConfig, Size, projection_class

if TYPE_CHECKING:
    from .projection import Projection

SHARED = ("embedding_dim", "num_tokens", "cross_attention_dim")
"""Sizes that all projections have, which are arguments of `IdentityAdapter`."""

EARLIER_SIZES = ("hidden_dim", "depth", "dim_head", "heads", "feature_dim", "shortcut")
"""Sizes that version 0.1 wrote beside the type instead of nested."""


def own_sizes(kind: type[Projection]) -> dict[str, Size]:
    """The sizes of a projection that its configuration can set, with their defaults."""
    parameters = inspect.signature(kind).parameters.values()
    return {parameter.name: parameter.default for parameter in parameters if parameter.name not in SHARED}


def complete_config(config: ProjectionConfig) -> dict[str, Size]:
    """The configuration of a projection with its type and all sizes.

    Raises:
        AdapterError: The type or a size is not known, or a size is of another type or less than 1.
    """
    given = {"type": config} if isinstance(config, str) else dict(config)
    name = given.pop("type", None)
    if not isinstance(name, str) or name not in PROJECTIONS:
        raise AdapterError(f"projection must be one of {', '.join(PROJECTIONS)}, got {name!r}.")
    kind = projection_class(name)
    sizes = own_sizes(kind)
    if unknown := sorted(given.keys() - sizes.keys()):
        raise AdapterError(f"projection '{name}' has no size {', '.join(unknown)}; its sizes are {', '.join(sizes)}.")
    for size, value in given.items():
        check(hints(kind)[size], value, f"projection '{name}'", size, AdapterError)
        if isinstance(value, int) and not isinstance(value, bool) and value < 1:
            raise AdapterError(f"projection '{name}': {size} must be >= 1, got {value}.")
    return {"type": name} | sizes | given


def make_projection(config: ProjectionConfig, **shared: int) -> Projection:
    """A projection with this configuration.

    Args:
        config: The type, or a mapping with the type and sizes.
        shared: `embedding_dim`, `num_tokens` and `cross_attention_dim`.

    Raises:
        AdapterError: See `complete_config`.
    """
    sizes: dict[str, Any] = complete_config(config)
    return projection_class(str(sizes.pop("type")))(**shared, **sizes)


def upgrade_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The configuration of an adapter, with the sizes that version 0.1 wrote beside the projection nested in it."""
    name = config.get("projection")
    if not isinstance(name, str) or name not in PROJECTIONS:
        return dict(config)
    known = own_sizes(projection_class(name))
    sizes = {size: config[size] for size in EARLIER_SIZES if size in known and config.get(size) is not None}
    kept = {key: value for key, value in config.items() if key not in EARLIER_SIZES}
    return kept | {"projection": {"type": name, **sizes}}


def parse_projection(words: Sequence[str]) -> ProjectionConfig:
    """Words of a command line, `TYPE [SIZE=VALUE …]` → the configuration.

    Raises:
        AdapterError: A word is not `SIZE=VALUE`, or as for `complete_config`.
    """
    config: dict[str, Size] = {"type": " ".join(words[:1])}
    for word in words[1:]:
        size, _, value = word.partition("=")
        try:
            config[size] = json.loads(value)
        except json.JSONDecodeError as error:
            raise AdapterError(
                f"Sizes of a projection are written SIZE=VALUE, such as depth=2, got '{word}'."
            ) from error
    complete_config(config)
    return config


def projection_table() -> str:
    """The table of all projections, in Markdown."""
    lines = ["| type | projection | sizes and defaults |", "| --- | --- | --- |"]
    for name, kind in ((name, projection_class(name)) for name in PROJECTIONS):
        sizes = ", ".join(f"`{size}={json.dumps(default)}`" for size, default in own_sizes(kind).items())
        lines.append(f"| `{name}` | {(inspect.getdoc(kind) or '').splitlines()[0]} | {sizes.replace('=null', '')} |")
    return "\n".join(lines)
