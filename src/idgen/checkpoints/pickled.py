"""Reads the tensors of a `.bin` file that `torch.save` wrote, without running code of the file."""

from __future__ import annotations

import pickle
import pickletools
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch

from ..errors import CheckpointError
from ..files import file_size

ALLOWED = {"collections OrderedDict", "torch._utils _rebuild_tensor_v2", "torch._utils _rebuild_parameter"}
"""The names that a pickle of tensors may use, in addition to torch's storage classes. `torch.load` allows more names,
with which a small file can request any amount of memory (`bytearray`, sparse tensors)."""

MAX_PICKLE = 1 << 20
"""Limit of the bytes of names and layouts; 1,000 tensors take about 200 KB."""

MAX_TENSORS, MAX_DEPTH = 20_000, 8


def read_pickle(file: Path) -> dict[str, torch.Tensor]:
    """All tensors of a file by flattened name (`image_proj.norm.weight`), memory-mapped.

    Raises:
        CheckpointError: The file cannot be read, contains anything but tensors in mappings, or its tensors take more
            memory than the file has bytes.
    """
    size = file_size(file)
    try:
        _check_archive(file, size)
        tree = torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except CheckpointError:
        raise
    except pickle.UnpicklingError as error:
        raise CheckpointError(_unsafe(file)) from error
    except Exception as error:  # torch's reader raises errors of many types for a damaged file
        raise CheckpointError(f"'{file}' could not be read: {type(error).__name__}: {error}") from error
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in _leaves(tree, file):
        if len(tensors) == MAX_TENSORS:
            raise CheckpointError(f"'{file}' must contain at most {MAX_TENSORS:,} tensors.")
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise CheckpointError(f"'{name}' in '{file}' is not a dense CPU tensor.")
        tensors[name] = tensor.detach()
    # tensors may repeat numbers (stride 0) or share a storage; each would be copied in full later
    if (needed := sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())) > size:
        raise CheckpointError(f"The tensors in '{file}' take {needed:,} bytes, but the file has only {size:,}.")
    return tensors


def _check_archive(file: Path, size: int) -> None:
    if not zipfile.is_zipfile(file):
        raise CheckpointError(
            f"'{file}' is not an archive of torch.save: it is damaged, or a bare pickle of torch before 1.6, which "
            "could run code."
        )
    with zipfile.ZipFile(file) as archive:
        members = archive.infolist()
        packed = any(member.compress_type != zipfile.ZIP_STORED for member in members)
        if packed or sum(member.file_size for member in members) > size:
            raise CheckpointError(f"'{file}' contains packed members, which torch.save never writes.")
        pickles = [member for member in members if member.filename.endswith("data.pkl")]
        if len(pickles) != 1 or pickles[0].file_size > MAX_PICKLE:
            raise CheckpointError(f"'{file}' is not a file of torch.save, or its list of tensors is too long.")
        for opcode, argument, _ in pickletools.genops(archive.read(pickles[0])):
            named = opcode.name in ("GLOBAL", "INST", "STACK_GLOBAL")
            if named and argument not in ALLOWED and not _is_storage(str(argument)):
                raise CheckpointError(_unsafe(file))


def _is_storage(name: str) -> bool:
    module, _, kind = name.partition(" ")
    return module == "torch" and kind.endswith("Storage") and kind.isalnum()


def _leaves(tree: Any, file: Path) -> Iterator[tuple[str, torch.Tensor]]:
    visited = 0
    stack = [("", tree, 0)]
    while stack:
        prefix, branch, depth = stack.pop()
        visited += 1
        if isinstance(branch, torch.Tensor):
            yield prefix, branch
        elif not isinstance(branch, Mapping):
            raise CheckpointError(f"{prefix[:80]!r} in '{file}' must be a tensor, got {type(branch).__name__}.")
        elif (
            depth == MAX_DEPTH or visited + len(stack) + len(branch) > 2 * MAX_TENSORS
        ):  # a mapping may contain itself
            raise CheckpointError(f"'{file}' nests its tensors too deeply, or contains too many.")
        else:
            inner = [(f"{prefix}.{key}" if prefix else str(key), value, depth + 1) for key, value in branch.items()]
            stack += reversed(inner)


def _unsafe(file: Path) -> str:
    return f"'{file}' contains more than tensors and could run code; it was not opened."
