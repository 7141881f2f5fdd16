"""Reads and writes public adapter files, as configuration and state dict of an `IdentityAdapter`."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from ..errors import CheckpointError
from ..files import parse_json, read_tensors, write_tensors, write_whole
from .building import check_config, refuse_misfits
from .foreign import supported_layout
from .layouts import Layout, layout_of, unpacked
from .pickled import read_pickle
from .source import find
from .variants import recognise

__all__ = ["find", "interpret", "read", "write"]

CONFIG = "idgen_config"
"""Key of the adapter's configuration in the header of safetensors files that this package writes."""

NET = "identity_net"
"""Part of a safetensors file with an `IdentityNet`."""

_log = logging.getLogger(__name__)


def read(
    kind: type[nn.Module], file: Path, variant: str | None = None, layers: Mapping[str, int] | None = None
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Read a public file; see `VARIANTS`.

    Args:
        kind: `IdentityAdapter`, whose configuration is checked.
        file: `.safetensors`, or a pickle of plain tensors.
        variant: The public format, if tensors and file names do not identify it.
        layers: Path → inner dimension of the base model's cross-attention layers; those of SD1.5 or SDXL if not given.

    Returns:
        Arguments of an `IdentityAdapter`, and its state dict.

    Raises:
        CheckpointError: The file is unsafe, of an unknown format, or made for another number of layers.
    """
    tensors, header = _read(file)
    tensors = unpacked(tensors)
    layout = supported_layout(tensors, str(file))
    state = layout.select(tensors)
    others = [name for name in tensors.keys() - state.keys() if not layout.ignores(name)]
    refuse_misfits(str(file), [], [name for name in others if not name.startswith(f"{NET}.")], [])
    if CONFIG in header:
        config = parse_json(header[CONFIG], f"The configuration in '{file}'")
        return config, _renamed(layout, check_config(kind, config, str(file)), state)
    return interpret(state, layout, file, variant, layers)


def interpret(
    state: Mapping[str, torch.Tensor],
    layout: Layout,
    file: Path,
    variant: str | None = None,
    layers: Mapping[str, int] | None = None,
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Identify the variant of published tensors with this layout; further arguments and result as in `read`."""
    found, guessed = recognise(state, "/".join(file.parts[-6:]), variant)
    why = "; this is a guess from tensors and file names, pass variant= to be sure" if guessed else ""
    _log.log(logging.WARNING if guessed else logging.INFO, "%s is read as '%s'%s.", file.name, found.name, why)
    config = found.config(state, layout.find_layers(state, layers or {}))
    return config, _renamed(layout, config, state)


def write(
    config: Mapping[str, Any],
    state: Mapping[str, torch.Tensor],
    file: Path,
    extra: Mapping[str, torch.Tensor] | None = None,
    header: Mapping[str, str] | None = None,
) -> None:
    """Write a file with the public layout of its projection: `.bin`, as other programs read it, or safetensors.

    Args:
        config: Configuration of the adapter, which is stored in the header of a safetensors file.
        state: State dict of the adapter.
        file: The file, written atomically.
        extra: Further tensors by name, for safetensors.
        header: Further entries of the header, for safetensors.

    Raises:
        CheckpointError: The layout cannot represent a part of the adapter, or the file has another suffix.
    """
    if any(name.startswith("to_words.") for name in state):
        raise CheckpointError("Public layouts cannot represent pseudo-words; save this adapter as a folder.")
    if config.get("blocks"):
        raise CheckpointError("Public layouts have all blocks of the UNet; save this adapter as a folder.")
    layout = layout_of(config)
    names = {ours: theirs for theirs, ours in layout.names(config, state).items()}
    tensors = {names.get(name, name): tensor.contiguous() for name, tensor in state.items()}
    if file.suffix == ".safetensors":
        entries = {CONFIG: json.dumps(dict(config)), "format": "pt", **(header or {})}
        write_tensors(file, {**tensors, **(extra or {})}, entries)
    elif file.suffix == ".bin":
        with write_whole(file) as new, new.open("wb") as opened:
            torch.save(tensors if layout.is_flat else _nested(tensors), opened)
    else:
        raise CheckpointError(f"The file must end in .safetensors or .bin, got '{file}'.")


def _nested(tensors: Mapping[str, torch.Tensor]) -> dict[str, dict[str, torch.Tensor]]:
    parts: dict[str, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = tensor
    return parts


def _renamed(layout: Layout, config: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    names = layout.names(config, state)
    return {names.get(name, name): tensor for name, tensor in state.items()}


def _read(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """All tensors of a file by flattened name (`image_proj.norm.weight`), and the header of a safetensors file."""
    return read_tensors(file) if file.suffix == ".safetensors" else (read_pickle(file), {})
