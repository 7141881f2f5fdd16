"""The options that most runs need, for `--help`; `--help-all` lists all of them."""

from __future__ import annotations

from dataclasses import MISSING, field, fields, is_dataclass, make_dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, NoReturn, get_type_hints

import docstring_parser
import tyro

from .stages import StageRow

COMMON = (
    *("optimizer.learning_rate", "loop.max_train_steps", "loop.train_batch_size", "loop.gradient_accumulation_steps"),
    *("loop.gradient_checkpointing", "loop.mixed_precision", "loop.checkpointing_steps"),
    *("loop.resume_from_checkpoint", "loop.seed", "loop.dry_run"),
)
"""Options of all stages, by the path of their fields."""


def print_help(row: StageRow, program: str, description: str) -> NoReturn:
    """Print the help and exit.

    Args:
        row: Row of the stage.
        program: Name of the program.
        description: Text above the options.
    """
    preset: Any = Literal[row.presets]
    flags: list[tuple[str, Any, Any]] = [
        ("config", _flag(Path | None, "config", "TOML file of options; flags replace its values."), None),
    ]
    if row.presets:
        flags.insert(
            0, ("preset", _flag(preset | None, "preset", "Recommended recipe; other options change it."), None)
        )
    flags += [_option(row.config, path) for path in (*row.help, *COMMON)]
    required = [(name, hint) for name, hint, default in flags if default is MISSING]
    optional = [(name, hint, field(default=default)) for name, hint, default in flags if default is not MISSING]
    short = make_dataclass("Options", [*required, *optional], kw_only=True)
    names = {each.name for each in fields(row.config)}
    weights = [f", among them --{name} NAME=WEIGHT" for name in ("losses", "rewards") if name in names]
    more = f"`{program} --help-all` lists all options{''.join(weights)}."
    tyro.cli(short, args=["--help"], prog=program, description=f"{description}\n\n{more}")
    raise SystemExit(0)


def _option(kind: type, path: str) -> tuple[str, Any, Any]:
    """Name, annotation and default of a field of a nested dataclass."""
    *parents, name = path.split(".")
    prefix = ""
    for parent in parents:
        hint = get_type_hints(kind, include_extras=True)[parent]
        bare = any(getattr(part, "name", None) == "" for part in getattr(hint, "__metadata__", ()))
        prefix += "" if bare else f"{parent}."
        factory: Any = next(each.default_factory for each in fields(kind) if each.name == parent)
        kind = type(factory())
        assert is_dataclass(kind)
    own = next(each for each in fields(kind) if each.name == name)
    texts = {
        part.arg_name: part.description
        for owner in reversed(kind.__mro__)
        for part in docstring_parser.parse(owner.__doc__ or "").params
    }
    hint = get_type_hints(kind, include_extras=True)[name]
    shown = next((given for part in getattr(hint, "__metadata__", ()) if (given := getattr(part, "name", None))), name)
    return path.replace(".", "_"), _flag(hint, prefix + shown, texts.get(name) or ""), own.default


def _flag(hint: Any, name: str, text: str) -> Any:
    return Annotated[hint, tyro.conf.arg(name=name, help=text)]
