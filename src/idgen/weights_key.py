"""Keys of networks: short hashes that tell whether a result was made with the same weights, whatever the names are."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeAlias

import torch
from torch import nn

Buffer: TypeAlias = bytes | memoryview

DECODER = ("decoder.", "post_quant_conv.")
"""What the names of weights start with that a VAE decodes with."""


def network_key(network: nn.Module) -> str:
    """A hash of the weights that cached outputs depend on, twelve hexadecimal digits.

    It does not depend on the decoder of a VAE, nor on the floating-point type unless values were rounded.
    """
    weights = network.state_dict().items()
    return _key(_bytes(((name, value) for name, value in weights if not name.startswith(DECODER)), torch.float32))


def component_keys(pipeline: Any) -> dict[str, str]:
    """The `component_key` of each component of a pipeline of diffusers, and of each of its identity adapters."""
    adapters = {f"id_adapters.{name}": adapter for name, adapter in getattr(pipeline, "id_adapters", {}).items()}
    parts = {**pipeline.components, **adapters}
    keys = {name: component_key(part) for name, part in parts.items()}
    return {name: key for name, key in keys.items() if key != _key(())}


def component_key(part: Any) -> str:
    """A hash of what pictures depend on in a network, an identity adapter, a scheduler or a tokenizer, twelve
    hexadecimal digits.

    Weights are rounded to float16, so that the same file gives the same key in float32 and in float16. They must be in
    memory.
    """
    return _key(_contents(part))


def pipeline_key(pipeline: Any) -> str:
    """One hash of all `component_keys`, twelve hexadecimal digits."""
    return _key([json.dumps(component_keys(pipeline), sort_keys=True).encode()])


def files_key(files: Iterable[Path]) -> str:
    """A hash of what is in files, in this order, twelve hexadecimal digits."""
    return _key(sha256_of(file).encode() for file in files)


def sha256_of(file: Path) -> str:
    """SHA-256 of a file, 64 hexadecimal digits."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()


def _contents(part: Any) -> Iterable[Buffer]:
    """What pictures depend on in a component; nothing for one that has no weights, settings or words."""
    config = getattr(part, "config", None)
    if isinstance(config, Mapping):  # of diffusers or of an adapter; names with "_" tell versions and places
        told = {name: value for name, value in config.items() if not name.startswith("_")}
        yield json.dumps(told, sort_keys=True, default=str).encode()
    if isinstance(part, nn.Module):
        yield from _bytes(part.state_dict().items(), torch.float16)
    elif hasattr(part, "get_vocab"):
        yield json.dumps(part.get_vocab(), sort_keys=True).encode()


def _bytes(weights: Iterable[tuple[str, torch.Tensor]], dtype: torch.dtype) -> Iterable[Buffer]:
    for name, value in sorted(weights, key=lambda pair: pair[0]):
        value = value.to(dtype) if value.is_floating_point() else value
        yield name.encode()
        yield value.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data


def _key(parts: Iterable[Buffer]) -> str:
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part)
    return digest.hexdigest()[:12]
