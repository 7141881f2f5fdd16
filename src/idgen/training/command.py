"""`idgen train denoise | reward`, and the scripts for `accelerate launch`: a TOML file and flags → a run."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import tyro

from ..errors import TrainingError
from ..terminal import guarded, say_error, show
from .config import DenoisingConfig, RewardConfig
from .methods import METHODS
from .toml import from_toml

Stage = Literal["denoise", "reward"]
_CONFIGS: dict[Stage, Any] = {"denoise": DenoisingConfig, "reward": RewardConfig}
_EXAMPLES: dict[Stage, str] = {
    "denoise": "--train_data_dir shards/ --output_dir run/ --max_train_steps 10000",
    "reward": "--id_adapter run/ --train_data_dir shards/ --output_dir run-reward/ --max_train_steps 300",
}


def parse(stage: Stage, arguments: Sequence[str], program: str) -> Any:
    """Flags → a configuration; `--config FILE.toml` gives what the flags do not.

    Raises:
        TrainingError: The file cannot be read, or holds what is not known.
        SystemExit: A flag is not known, or one is missing (after saying so), or `--help` was asked for.
    """
    first = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    first.add_argument("--config", type=Path)
    if stage == "reward":  # the method decides which settings there are
        first.add_argument("--rollout.method", dest="method")
    known, rest = first.parse_known_args(list(arguments))
    kind, method = _CONFIGS[stage], getattr(known, "method", None)
    if method is not None and method not in METHODS:
        raise TrainingError(f"rollout.method must be one of {', '.join(METHODS)}, not '{method}'.")
    given: dict[str, Any] = {}
    if known.config is not None:
        given["default"] = from_toml(kind, known.config, method)
    elif method is not None:
        given["default"] = kind(train_data_dir=tyro.MISSING, output_dir=tyro.MISSING, rollout=METHODS[method]())
    example = f"{program} {_EXAMPLES[stage]}\n\n{program} --config {stage}.toml --seed 1"
    summary = (kind.__doc__ or "").split("\n\n")[0]
    return tyro.cli(kind, args=rest, prog=program, description=f"{summary}\n\n{example}", **given)


def train(stage: Stage, arguments: Sequence[str], program: str) -> None:
    """Parse and run."""
    config = parse(stage, arguments, program)
    from .run import train_denoising, train_reward  # the networks' libraries are slow to import, `--help` shall not be

    done = train_denoising(config) if stage == "denoise" else train_reward(config)
    if done and int(os.environ.get("RANK", "0")) == 0:
        show(config.output_dir)


def main(arguments: Sequence[str]) -> None:
    """`idgen train STAGE …`."""
    stages = {"denoise": DenoisingConfig, "reward": RewardConfig}
    if not arguments or arguments[0] not in stages:
        print("usage: idgen train {denoise,reward} [--config FILE.toml] [OPTIONS]\n")
        for name, kind in stages.items():
            print(f"  {name:8} {(kind.__doc__ or '').splitlines()[0]}")
        print("\nidgen train denoise --help says more. On several GPUs: accelerate launch train/train_id_adapter.py …")
        sys.exit(0 if arguments and arguments[0] in ("-h", "--help") else 2)
    stage: Any = arguments[0]
    train(stage, arguments[1:], f"idgen train {stage}")


def script(stage: Stage) -> None:
    """Entry point of the scripts in `train/`; our own errors end it with one line."""
    from ..errors import IdgenError

    with guarded():
        try:
            train(stage, sys.argv[1:], Path(sys.argv[0]).name)
        except IdgenError as error:
            say_error(error)
            sys.exit(1)
