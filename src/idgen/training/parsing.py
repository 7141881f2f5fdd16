"""Flags, presets and TOML files → the configuration of a training run."""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import MISSING, fields, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, TypeVar

import tyro

from ..errors import LossError, TrainingError
from ..files import read_text
from ..losses.settings import WeightedConfig
from ..typed import arguments as typed_arguments
from ..typed import hints
from .methods import METHODS
from .short_help import print_help
from .stages import STAGES, Stage, StageRow

Config = TypeVar("Config")
RENAMED = {
    "pretrained_model_name_or_path": "base",
    "judge": "eval_encoder",
    "t_max": 'the window of each weight, as in identity = "2@0.85"',
    "gate": 'the window of each weight, as in identity = "2@decay"',
    "identity_weight": "identity in the table rewards",
    "own": 'a weight in the table rewards, "FILE.py:FUNCTION" = 1.0',
    "own_weight": 'a weight in the table rewards, "FILE.py:FUNCTION" = 1.0',
}
"""Keys of TOML files in earlier versions -> what they are called now."""


def from_toml(kind: type[Config], file: Path, method: str | None = None) -> Config:
    """Read a configuration from a TOML file, whose tables are the nested dataclasses.

    The tables `losses` and `rewards` contain weights by name, and settings.

    Args:
        kind: The dataclass.
        file: The file.
        method: Method of the table `rollout`; it replaces the one in the file.

    Raises:
        TrainingError: The file cannot be read, or has an unknown key or a value of the wrong type.
    """
    return _from_values(kind, _read(file), str(file), method)


def parse(stage: Stage, arguments: Sequence[str], program: str) -> Any:
    """Parse flags to the configuration of a stage.

    `--preset NAME` gives the settings of a recommended recipe, `--config FILE.toml` replaces some of them, and flags
    replace both.

    Raises:
        TrainingError: The preset or the method is not known, or the file cannot be read or has an unknown key.
        SystemExit: A flag is unknown or missing (after a message), or `--help` or `--help-all` is given.
    """
    row = STAGES[stage]
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--preset")
    first.add_argument("--config", type=Path)
    if stage == "reward":  # each method has its own settings
        first.add_argument("--rollout.method", dest="method")
    known, rest = first.parse_known_args(list(arguments))
    kind: Any = row.config
    example = f"{program} {row.example}\n\n{program} --config {stage}.toml --seed 1"
    described = f"{(kind.__doc__ or '').split(chr(10) * 2)[0]}\n\n{example}"
    if {"-h", "--help"} & {*rest}:
        print_help(row, program, described)
    default = _default(row, known.preset, known.config, getattr(known, "method", None))
    given = {} if default is None else {"default": default}
    rest = ["--help" if word == "--help-all" else word for word in rest]
    config = tyro.cli(kind, args=rest, prog=program, description=described, **given)
    return _with_weights_of_file(config, default)


def _default(row: StageRow, preset: str | None, file: Path | None, method: str | None) -> Any:
    """The configuration that flags change; None for that of the dataclass."""
    if preset is not None and preset not in row.presets:
        raise TrainingError(f"--preset must be one of {', '.join(row.presets)}, not '{preset}'.")
    if method is not None and method not in METHODS:
        raise TrainingError(f"rollout.method must be one of {', '.join(METHODS)}, not '{method}'.")
    if preset is None and file is None and method is None:
        return None
    values: dict[str, Any] = (
        {} if preset is None else _read(Path(str(files("idgen.training") / f"presets/{preset}.toml")))
    )
    if file is not None:
        values = _merged(values, _read(file))
    missing = [name for name in _needed(row.config) if name not in values]
    where = f"preset '{preset}'" if file is None else str(file)
    config = _from_values(row.config, values | dict.fromkeys(missing, ""), where, method)
    return replace(config, **dict.fromkeys(missing, tyro.MISSING))  # flags must give them


def _needed(kind: type) -> list[str]:
    """Names of the fields without a default."""
    return [each.name for each in fields(kind) if each.default is MISSING and each.default_factory is MISSING]


def _read(file: Path) -> dict[str, Any]:
    try:
        values = tomllib.loads(read_text(file, error=TrainingError))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise TrainingError(f"'{file}' could not be read as TOML: {error}") from error
    _check_names(values, file)
    return values


def _merged(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Two tables as one; the second one's values replace those of the first."""
    both = {
        name: _merged(below[name], value)
        for name, value in above.items()
        if isinstance(value, Mapping) and isinstance(below.get(name), Mapping)
    }
    return {**below, **above, **both}


def _from_values(kind: type[Config], values: dict[str, Any], where: str, method: str | None) -> Config:
    if method is not None:
        rollout = values.get("rollout", {})
        values["rollout"] = {**rollout, "method": method} if isinstance(rollout, dict) else rollout
    for name, part in hints(kind).items():
        if isinstance(part, type) and issubclass(part, WeightedConfig) and isinstance(values.get(name), dict):
            values[name] = part.nest(values[name])
    try:
        return kind(**typed_arguments(kind, values, where, TrainingError))
    except LossError as error:
        raise TrainingError(f"{where}: {error}") from error


def _with_weights_of_file(config: Any, file: Any) -> Any:
    """Weights of the file that no flag replaces: `--losses identity=1` changes no other weight."""
    part = next((name for name in ("losses", "rewards") if hasattr(config, name)), "")
    before, now = getattr(file, part, None), getattr(config, part, None)
    if before is None or now is None:
        return config
    return replace(config, **{part: replace(now, weights=before.weights | now.weights)})


def _check_names(values: Mapping[str, Any], file: Path) -> None:
    """Refuse keys of earlier versions with their new names."""
    for name, value in values.items():
        if name in RENAMED:
            raise TrainingError(f"{file}: {name} is now called {RENAMED[name]}.")
        if isinstance(value, Mapping):
            _check_names(value, file)
