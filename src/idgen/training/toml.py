"""A TOML file, whose tables are the parts of a configuration → the configuration."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import TypeVar

from ..errors import TrainingError
from ..files import read_text
from ..typed import arguments

Config = TypeVar("Config")


def from_toml(kind: type[Config], file: Path, method: str | None = None) -> Config:
    """Read a configuration from a TOML file whose tables are the parts of the dataclass.

    Args:
        kind: The dataclass.
        file: The file.
        method: Method of the table `rollout`, in place of the one that the file names.

    Raises:
        TrainingError: The file cannot be read, or holds a key that is not known or a value of the wrong type.
    """
    try:
        values = tomllib.loads(read_text(file, error=TrainingError))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise TrainingError(f"'{file}' could not be read as TOML: {error}") from error
    if method is not None:
        rollout = values.get("rollout", {})
        values["rollout"] = {**rollout, "method": method} if isinstance(rollout, dict) else rollout
    return kind(**arguments(kind, values, str(file), TrainingError))
