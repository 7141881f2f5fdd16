"""`idgen train STAGE`, and the scripts for `accelerate launch`: a configuration → a run."""

from __future__ import annotations

import os
import pkgutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..errors import IdgenError
from ..inputs import check_inputs
from ..terminal import guarded, say, say_error, show
from .parsing import parse
from .stages import STAGES, Stage


def train(stage: Stage, arguments: Sequence[str], program: str) -> None:
    """Parse the flags and run the training."""
    config: Any = parse(stage, arguments, program)
    check_inputs(config)
    row = STAGES[stage]
    done = pkgutil.resolve_name(row.train)(config)  # imported here, because it is slow and `--help` does not need it
    if done and int(os.environ.get("RANK", "0")) == 0:
        for line in pkgutil.resolve_name(row.closing)(config):
            say(line)
        show(config.output_dir)


def main(arguments: Sequence[str]) -> None:
    """`idgen train STAGE …`."""
    if not arguments or arguments[0] not in STAGES:
        print(f"usage: idgen train {{{','.join(STAGES)}}} [--preset NAME] [--config FILE.toml] [OPTIONS]\n")
        for name, row in STAGES.items():
            print(f"  {name:8} {(row.config.__doc__ or '').splitlines()[0]}")
        recipes = "; ".join(
            f"--preset {'|'.join(row.presets)} for {name}" for name, row in STAGES.items() if row.presets
        )
        print(
            f"\nRecommended recipes: {recipes}."
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
