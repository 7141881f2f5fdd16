"""`idgen train denoise | reward`, and the scripts for `accelerate launch`: a configuration → a run."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import IdgenError
from ..inputs import check_inputs
from ..terminal import guarded, say, say_error, show
from .config import DenoisingConfig
from .parsing import CONFIGS, PRESETS, Stage, parse


def train(stage: Stage, arguments: Sequence[str], program: str) -> None:
    """Parse the flags and run the training."""
    config = parse(stage, arguments, program)
    check_inputs(config)
    from .run import train_denoising, train_reward  # here, because it is slow and `--help` does not need it
    from .summary import closing

    done = train_denoising(config) if isinstance(config, DenoisingConfig) else train_reward(config)
    if done and int(os.environ.get("RANK", "0")) == 0:
        for line in closing(config):
            say(line)
        show(config.output_dir)


def main(arguments: Sequence[str]) -> None:
    """`idgen train STAGE …`."""
    if not arguments or arguments[0] not in CONFIGS:
        print("usage: idgen train {denoise,reward} [--preset NAME] [--config FILE.toml] [OPTIONS]\n")
        for name, kind in CONFIGS.items():
            print(f"  {name:8} {(kind.__doc__ or '').splitlines()[0]}")
        print(
            f"\nRecommended recipes: --preset {'|'.join(PRESETS['denoise'])} for denoise, --preset reward for reward."
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
