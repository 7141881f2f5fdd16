"""`--projection TYPE [SIZE=VALUE …]`."""

from __future__ import annotations

import json
from typing import cast

import tyro

from ..adapter.projection_config import complete_config, parse_projection
from ..adapter.projections import PROJECTIONS, ProjectionConfig, projection_class
from ..errors import TrainingError


def projection_flag() -> tyro.constructors.PrimitiveConstructorSpec[ProjectionConfig]:
    """How tyro reads and shows the configuration of a projection."""
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs="*",
        metavar=f"{{{','.join(PROJECTIONS)}}} [SIZE=VALUE ...]",
        instance_from_str=parse_projection,
        is_instance=lambda value: isinstance(value, str | dict),
        str_from_instance=_words,
    )


def check_trainable(config: ProjectionConfig) -> None:
    """Check the configuration of a projection that is to be trained.

    Raises:
        AdapterError: See `complete_config`.
        TrainingError: The projection reads CLIP features, which shards do not hold.
    """
    if config == "mlp":  # the default needs no check, which would import torch
        return
    name = str(complete_config(config)["type"])
    if projection_class(name).reads_features:
        raise TrainingError(
            f"projection '{name}' reads CLIP features, which shards do not hold; it cannot be trained."
        )


def _words(config: ProjectionConfig) -> list[str]:
    if isinstance(config, str):
        return [config]
    return [cast(str, config["type"]), *(f"{k}={json.dumps(v)}" for k, v in config.items() if k != "type")]
