"""Public adapter files → configuration and state dict of an `IdentityAdapter`, and back."""

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
from .building import check_config
from .foreign import refuse_foreign
from .layout import known_layers, rename
from .pickled import read_pickle
from .source import find
from .variants import recognise

__all__ = ["find", "interpret", "read", "write"]

CONFIG = "idgen_config"
"""Key of the adapter's configuration in the header of files that we write, so that nothing has to be guessed."""

_log = logging.getLogger(__name__)


def read(
    kind: type[nn.Module], file: Path, variant: str | None = None, layers: Mapping[str, int] | None = None
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Open a file that is laid out like InstantID's or IP-Adapter-FaceID's.

    Args:
        kind: `IdentityAdapter`, which says what its configuration may hold.
        file: `.safetensors`, or a pickle, which is opened as plain tensors and nothing else.
        variant: Where neither tensors nor names tell.
        layers: Path → inner dimension of the base model's cross-attention layers; SD1.5's or SDXL's if not given.

    Returns:
        Arguments of an `IdentityAdapter`, and its state dict.

    Raises:
        CheckpointError: The file is unsafe, unknown, or is laid out for another number of layers.
    """
    state, header = _read(file)
    refuse_foreign(state, str(file))
    state = {name: tensor for name, tensor in state.items() if name.startswith(("image_proj.", "ip_adapter."))}
    if CONFIG in header:
        config = parse_json(header[CONFIG], f"The configuration in '{file}'")
        return config, _renamed(check_config(kind, config, str(file)), state)
    return interpret(state, file, variant, layers)


def interpret(
    state: Mapping[str, torch.Tensor], file: Path, variant: str | None, layers: Mapping[str, int] | None
) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    """Tell what published tensors mean; arguments and result as in `read`, with the tensors that it found."""
    found, guessed = recognise(state, "/".join(file.parts[-6:]), variant)
    why = "; a guess, since neither tensors nor names tell: say variant= to be sure" if guessed else ""
    _log.log(logging.WARNING if guessed else logging.INFO, "%s is opened as '%s'%s.", file.name, found.name, why)
    count = sum(name.endswith(".to_k_ip.weight") for name in state)
    config = found.config(state, layers if layers is not None and len(layers) == count else known_layers(count))
    return config, _renamed(config, state)


def write(
    config: Mapping[str, Any],
    state: Mapping[str, torch.Tensor],
    file: Path,
    extra: Mapping[str, torch.Tensor] | None = None,
    header: Mapping[str, str] | None = None,
) -> None:
    """Write IP-Adapter's layout: `.bin` as other programs expect it, or the same names as safetensors.

    Args:
        config: Of the adapter; the safetensors file keeps it in its header.
        state: The adapter's state dict.
        file: Made whole or not at all.
        extra: Further tensors by name, for safetensors.
        header: Further entries of its header.

    Raises:
        CheckpointError: The adapter has parts that the layout has no place for, or the name has another suffix.
    """
    if any(name.startswith("to_words.") for name in state):
        raise CheckpointError("IP-Adapter's layout has no place for pseudo-words; keep this adapter as a folder.")
    names = {ours: theirs for theirs, ours in _names(config, state).items()}
    tensors = {names.get(name, name): tensor.contiguous() for name, tensor in state.items()}
    if file.suffix == ".safetensors":
        entries = {CONFIG: json.dumps(dict(config)), "format": "pt", **(header or {})}
        write_tensors(file, {**tensors, **(extra or {})}, entries)
    elif file.suffix == ".bin":
        parts = {"image_proj": {}, "ip_adapter": {}}
        for name, tensor in tensors.items():
            part, _, rest = name.partition(".")
            parts[part][rest] = tensor
        with write_whole(file) as new, new.open("wb") as opened:
            torch.save(parts, opened)
    else:
        raise CheckpointError(f"'{file}' ends in neither .safetensors nor .bin.")


def _renamed(config: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    names = _names(config, state)
    return {names.get(name, name): tensor for name, tensor in state.items()}


def _names(config: Mapping[str, Any], state: Mapping[str, torch.Tensor]) -> dict[str, str]:
    """Name in the public file → ours, for everything that is named differently."""
    names = rename(config["layers"], bool(config.get("lora_rank")))
    for name in state:
        if name.startswith("image_proj."):
            names[name] = "to_tokens." + name.removeprefix("image_proj.")
        elif name.startswith("to_tokens."):
            names["image_proj." + name.removeprefix("to_tokens.")] = name
    return names


def _read(file: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    """All tensors of a file by flattened name (`image_proj.norm.weight`), and the header of a safetensors file."""
    return read_tensors(file) if file.suffix == ".safetensors" else (read_pickle(file), {})
