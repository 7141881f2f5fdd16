"""Tensors with a description in one safetensors file, as identities and blocklists are stored."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any, TypeVar

import torch

from .errors import CheckpointError
from .files import parse_json, read_tensors, write_tensors
from .typed import arguments

Record = TypeVar("Record")


def write_record(
    path: str | os.PathLike[str], tensors: Mapping[str, torch.Tensor], form: str, key: str, values: Mapping[str, Any]
) -> None:
    """Write tensors and a description, whole or not at all.

    Args:
        path: File to write.
        tensors: Tensors by name.
        form: Name of the file format.
        key: Name of the description in the file.
        values: The description.
    """
    write_tensors(path, dict(tensors), {"format": form, key: json.dumps(dict(values))})


def read_record(
    kind: type[Record], path: str | os.PathLike[str], max_bytes: int, form: str, key: str, name: str
) -> Record:
    """Read a file that `write_record` wrote.

    Args:
        kind: Class that is made of the tensors and the description.
        path: File to read.
        max_bytes: Largest size of the file.
        form: Name of the file format.
        key: Name of the description in the file.
        name: What the file is, for messages, such as "a blocklist".

    Raises:
        CheckpointError: The file is missing, damaged or of another format.
    """
    tensors, metadata = read_tensors(path, max_bytes)
    where = f"'{os.fspath(path)}'"
    if metadata.get("format") != form:
        raise CheckpointError(f"{where} is not {name}: its format is {metadata.get('format')!r}.")
    header = parse_json(metadata.get(key, ""), f"The description in {where}")
    if not isinstance(header, dict):
        raise CheckpointError(f"The description in {where} must be a JSON object, not {type(header).__name__}.")
    return kind(**arguments(kind, {**header, **tensors}, where, CheckpointError))
