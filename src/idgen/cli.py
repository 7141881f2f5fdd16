"""The command line: `idgen COMMAND`. The code of a command is imported when the command is called."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from functools import partial
from importlib import import_module

from . import __version__
from .commands import COMMANDS
from .errors import IdgenError
from .terminal import guarded, say_error


def main() -> None:
    """Entry point of the `idgen` command; our own errors end it with one line instead of a traceback."""
    for library in ("DIFFUSERS", "TRANSFORMERS"):  # they read it when they are imported
        os.environ.setdefault(f"{library}_VERBOSITY", "error")
    with guarded():
        try:
            name = parse_command(sys.argv[1:2])
            if name == "train":  # it has commands of its own
                from .training.command import main as train

                return train(sys.argv[2:])
            import tyro

            from .inputs import checked

            run = checked(import_module(f".commands.{name}", __package__).run)
            tyro.cli(run, prog=f"idgen {name}", args=sys.argv[2:])
        except IdgenError as error:
            say_error(error)
            sys.exit(1)


def parse_command(arguments: Sequence[str]) -> str:
    """The name of the command; raises SystemExit for `--help`, `--version` and unknown names."""
    parser = argparse.ArgumentParser(
        prog="idgen",
        description="Put one person's face into Stable Diffusion images.",
        epilog="`idgen COMMAND --help` shows the options of a command.",
        formatter_class=partial(argparse.HelpFormatter, max_help_position=16),
    )
    parser.add_argument("--version", action="version", version=f"idgen {__version__}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", dest="command", required=True)
    for name, summary in COMMANDS.items():
        commands.add_parser(name, help=summary, add_help=False)
    return parser.parse_args(list(arguments)).command
