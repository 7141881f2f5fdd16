"""Types of options that name what a command reads. A missing file is an error before anything is opened.

The checks look at names only, so that they answer at once.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from inspect import signature
from pathlib import Path
from typing import Annotated, Any, TypeAlias, get_args, get_type_hints

from tyro.constructors import PrimitiveConstructorSpec

from .errors import CheckpointError, IdgenError
from .names import ADAPTERS, BASES, nearest, nearest_path

_ENCODER_FILES = ("sface", "arcface", "imagenet")
_HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")


def existing_path(text: str) -> Path:
    """The path; raises IdgenError if there is no file or folder."""
    path = Path(text)
    try:
        found = path.exists()
    except (OSError, ValueError) as error:  # a name that is too long, or has a null character
        raise IdgenError(f"{text!r} cannot be read: {error}") from error
    if not found:
        raise IdgenError(f"There is no file or folder '{text}'.{nearest_path(text)}")
    return path


def existing_place(text: str) -> str:
    """A path that exists, or the URL of another place, which is not looked up here."""
    return text if "://" in text else str(existing_path(text))


def base_name(text: str) -> str:
    """The name of a base model; raises CheckpointError if it cannot be one."""
    return text if text == "tiny" else _model(text, BASES)


def adapter_name(text: str) -> str:
    """The name of an adapter; raises CheckpointError if it cannot be one."""
    return text if text == "tiny" else _model(text, ("tiny", *ADAPTERS))


def network_name(text: str) -> str:
    """The name of another network; raises CheckpointError if it cannot be one."""
    return _model(text, ADAPTERS)


def encoder_spec(text: str) -> str:
    """The name of a face encoder. Of `KIND:FILE` and `FILE.py:CLASS` the file must exist."""
    kind, colon, file = text.rpartition(":")
    if kind.endswith(".py"):
        existing_path(kind)
    elif colon and kind in _ENCODER_FILES and not _HUB_ID.fullmatch(file):
        existing_path(file)
    return text


def _model(text: str, known: tuple[str, ...]) -> str:
    """The name of a model; whether the hub has it is found out when it is opened."""
    beside = Path(text).parent  # a folder of this machine, and then the name is no hub id
    if Path(text).exists() or (_HUB_ID.fullmatch(text) and not beside.is_dir()):
        return text
    raise CheckpointError(
        f"There is no model '{text}': it is neither a file or folder nor a hub id (OWNER/NAME)."
        f"{nearest(text, known) or nearest_path(text)}"
    )


@dataclass(frozen=True)
class InputType(PrimitiveConstructorSpec[Any]):
    """How tyro reads an option, and the check of its value, which `check_inputs` calls."""

    check: Callable[[str], object] = str


def _option(check: Callable[[str], object], kind: type, metavar: str) -> InputType:
    return InputType(
        nargs=1,
        metavar=metavar,
        instance_from_str=lambda words: kind(words[0]),
        is_instance=lambda value: isinstance(value, kind),
        str_from_instance=lambda value: [str(value)],
        check=check,
    )


InputPath: TypeAlias = Annotated[Path, _option(existing_path, Path, "PATH")]
"""A file or folder that exists."""
InputPlace: TypeAlias = Annotated[str, _option(existing_place, str, "PATH|URL")]
"""A file or folder that exists, or a URL."""
BaseName: TypeAlias = Annotated[str, _option(base_name, str, "tiny|FOLDER|HUB-ID")]
"""A base model."""
AdapterName: TypeAlias = Annotated[str, _option(adapter_name, str, "tiny|FOLDER|FILE|HUB-ID")]
"""An identity adapter."""
NetworkName: TypeAlias = Annotated[str, _option(network_name, str, "FOLDER|FILE|HUB-ID")]
"""A LoRA, an IdentityNet, a restorer, or an adapter that there is no built-in one of."""
EncoderSpec: TypeAlias = Annotated[str, _option(encoder_spec, str, "NAME|insightface/PACK|KIND:FILE|FILE.py:CLASS")]
"""A face encoder; docs/encoders.md describes them."""


def _amounts(texts: list[str]) -> dict[str, float]:
    pairs = [text.rpartition("=") for text in texts]
    if not all(name for name, _, _ in pairs):
        raise ValueError(f"{' '.join(texts)} is not NAME=AMOUNT")
    return {name: float(amount) for name, _, amount in pairs}


Amounts: TypeAlias = Annotated[
    Mapping[str, float],
    PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME=AMOUNT",
        instance_from_str=_amounts,
        is_instance=lambda given: isinstance(given, Mapping),
        str_from_instance=lambda given: [f"{name}={amount:g}" for name, amount in given.items()],
    ),
]
"""Amounts by name, such as smile=0.8."""


def check_inputs(options: Any) -> None:
    """Check the inputs that a dataclass of options names, also in the dataclasses inside of it.

    Raises:
        IdgenError: One does not exist.
    """
    hints = get_type_hints(type(options), include_extras=True)
    for field in fields(options):
        _check(hints[field.name], getattr(options, field.name))


def checked(command: Callable[..., None]) -> Callable[..., None]:
    """A command that checks the inputs among its arguments first; raises as `check_inputs`."""

    @wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        hints = get_type_hints(command, include_extras=True)
        for name, value in signature(command).bind(*args, **kwargs).arguments.items():
            _check(hints[name], value)
        command(*args, **kwargs)

    return run


def input_types(hint: Any) -> Iterator[InputType]:
    """The input types in an annotation, as in `tuple[InputPath, ...]` or `InputPath | None`."""
    yield from (part for part in getattr(hint, "__metadata__", ()) if isinstance(part, InputType))
    for inner in get_args(hint):
        yield from input_types(inner)


def _check(hint: Any, value: Any) -> None:
    if is_dataclass(value):
        check_inputs(value)
    for kind in input_types(hint):
        for each in value if isinstance(value, tuple) else (value,):
            if each:
                kind.check(str(each))
