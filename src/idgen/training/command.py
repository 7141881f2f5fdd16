"""`idgen train denoise | reward`, and the scripts for `accelerate launch`: flags and a TOML file -> a run."""

from __future__ import annotations

import argparse
import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, TypeVar, overload

import tyro

from ..errors import IdgenError, LossError, TrainingError
from ..files import read_text
from ..inputs import check_inputs
from ..losses.settings import WeightedConfig
from ..terminal import guarded, say_error, show
from ..typed import arguments as typed_arguments
from ..typed import hints
from .config import DenoisingConfig, RewardConfig
from .methods import METHODS

Stage = Literal["denoise", "reward"]
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

_CONFIGS: dict[Stage, type[DenoisingConfig | RewardConfig]] = {"denoise": DenoisingConfig, "reward": RewardConfig}
_EXAMPLES: dict[Stage, str] = {
    "denoise": "--train_data_dir shards/ --output_dir run/ --max_train_steps 10000",
    "reward": "--id_adapter run/ --train_data_dir shards/ --output_dir run-reward/ --max_train_steps 300",
}


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
    try:
        values = tomllib.loads(read_text(file, error=TrainingError))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise TrainingError(f"'{file}' could not be read as TOML: {error}") from error
    _check_names(values, file)
    if method is not None:
        rollout = values.get("rollout", {})
        values["rollout"] = {**rollout, "method": method} if isinstance(rollout, dict) else rollout
    for name, part in hints(kind).items():
        if isinstance(part, type) and issubclass(part, WeightedConfig) and isinstance(values.get(name), dict):
            values[name] = part.nest(values[name])
    try:
        return kind(**typed_arguments(kind, values, str(file), TrainingError))
    except LossError as error:
        raise TrainingError(f"{file}: {error}") from error


@overload
def parse(stage: Literal["denoise"], arguments: Sequence[str], program: str) -> DenoisingConfig: ...
@overload
def parse(stage: Literal["reward"], arguments: Sequence[str], program: str) -> RewardConfig: ...
def parse(stage: Stage, arguments: Sequence[str], program: str) -> DenoisingConfig | RewardConfig:
    """Parse flags to a configuration; `--config FILE.toml` gives the settings without a flag.

    Raises:
        TrainingError: The file cannot be read, or has an unknown key.
        SystemExit: A flag is unknown or missing (after a message), or `--help` is given.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", type=Path)
    if stage == "reward":  # each method has its own settings
        first.add_argument("--rollout.method", dest="method")
    known, rest = first.parse_known_args(list(arguments))
    kind: Any = _CONFIGS[stage]
    method = getattr(known, "method", None)
    if method is not None and method not in METHODS:
        raise TrainingError(f"rollout.method must be one of {', '.join(METHODS)}, not '{method}'.")
    given: dict[str, Any] = {}
    if known.config is not None:
        given["default"] = from_toml(kind, known.config, method)
    elif method is not None:
        given["default"] = kind(train_data_dir=tyro.MISSING, output_dir=tyro.MISSING, rollout=METHODS[method]())
    example = f"{program} {_EXAMPLES[stage]}\n\n{program} --config {stage}.toml --seed 1"
    summary = (kind.__doc__ or "").split("\n\n")[0]
    config = tyro.cli(kind, args=rest, prog=program, description=f"{summary}\n\n{example}", **given)
    return _with_weights_of_file(config, given.get("default"))


def _with_weights_of_file(config: Any, file: Any) -> Any:
    """Weights of the file that no flag replaces: `--losses identity=1` changes no other weight."""
    part = "losses" if isinstance(config, DenoisingConfig) else "rewards"
    before, now = getattr(file, part, None), getattr(config, part)
    return config if before is None else replace(config, **{part: replace(now, weights=before.weights | now.weights)})


def train(stage: Stage, arguments: Sequence[str], program: str) -> None:
    """Parse the flags and run the training."""
    config = parse(stage, arguments, program)
    check_inputs(config)
    from .run import train_denoising, train_reward  # here, because it is slow and `--help` does not need it

    done = train_denoising(config) if isinstance(config, DenoisingConfig) else train_reward(config)
    if done and int(os.environ.get("RANK", "0")) == 0:
        show(config.output_dir)


def main(arguments: Sequence[str]) -> None:
    """`idgen train STAGE …`."""
    if not arguments or arguments[0] not in _CONFIGS:
        print("usage: idgen train {denoise,reward} [--config FILE.toml] [OPTIONS]\n")
        for name, kind in _CONFIGS.items():
            print(f"  {name:8} {(kind.__doc__ or '').splitlines()[0]}")
        print(
            "\n`idgen train denoise --help` lists the options. "
            "On several GPUs: accelerate launch train/train_id_adapter.py …"
        )
        sys.exit(0 if arguments and arguments[0] in ("-h", "--help") else 2)
    stage: Any = arguments[0]
    train(stage, arguments[1:], f"idgen train {stage}")


def script(stage: Stage) -> None:
    """Entry point of the scripts in `train/`. Errors of idgen are printed in one line."""
    with guarded():
        try:
            train(stage, sys.argv[1:], Path(sys.argv[0]).name)
        except IdgenError as error:
            say_error(error)
            sys.exit(1)


def _check_names(values: Mapping[str, Any], file: Path) -> None:
    """Refuse keys of earlier versions with their new names."""
    for name, value in values.items():
        if name in RENAMED:
            raise TrainingError(f"{file}: {name} is now called {RENAMED[name]}.")
        if isinstance(value, Mapping):
            _check_names(value, file)
