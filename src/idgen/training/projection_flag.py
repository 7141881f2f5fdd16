"""`--projection TYPE [SIZE=VALUE …]`, with the types that can be trained."""

from __future__ import annotations

import json
from typing import cast

import tyro

from ..adapter.projection_config import ProjectionConfig, parse_projection
from ..adapter.projections import PROJECTIONS


def trainable_projections() -> list[str]:
    """Types of projections that read nothing but the embedding: shards hold no CLIP features."""
    return [name for name, kind in PROJECTIONS.items() if not kind.reads_features]


def projection_flag() -> tyro.constructors.PrimitiveConstructorSpec[ProjectionConfig]:
    """How tyro reads and shows the configuration of a projection."""
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"{{{','.join(trainable_projections())}}} [SIZE=VALUE ...]",
        instance_from_str=parse_projection,
        is_instance=lambda value: isinstance(value, str | dict),
        str_from_instance=_words,
    )


def _words(config: ProjectionConfig) -> list[str]:
    if isinstance(config, str):
        return [config]
    return [cast(str, config["type"]), *(f"{k}={json.dumps(v)}" for k, v in config.items() if k != "type")]
