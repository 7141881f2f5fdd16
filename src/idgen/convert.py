"""Converts adapters between folders and single files in IP-Adapter's layout, with their IdentityNet."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download

from .adapter import IdentityAdapter, IdentityNet
from .checkpoints.native import plain_config
from .checkpoints.public import NET, find, write
from .errors import CheckpointError
from .files import open_tensors
from .tiny import adapter_place

NET_FOLDERS = (NET, "ControlNetModel")
"""Folders of an IdentityNet beside an adapter: in this package's format, and in InstantID's repository."""


def convert(
    source: str,
    target: Path,
    *,
    weight_name: str | None = None,
    variant: str | None = None,
    change: Callable[[dict[str, torch.Tensor]], dict[str, torch.Tensor]] | None = None,
) -> list[str]:
    """Convert an adapter, with the IdentityNet beside it or in the same file.

    Args:
        source: A folder, a file or a hub id; see `IdentityAdapter.from_pretrained`.
        target: `….safetensors` for one file in IP-Adapter's layout, with the IdentityNet if there is one; `….bin` for
            a pickle that other programs read; any other name for a folder.
        weight_name: The file in the folder or repository, if there are several.
        variant: The public format, if tensors and file names do not identify it.
        change: Applied to the state dict of the adapter.

    Returns:
        The written parts: `"adapter"`, and `"identity_net"` if there was one.

    Raises:
        CheckpointError: The source cannot be opened, or the target's format cannot represent a part of it.
    """
    place = local_copy(source, weight_name)
    adapter = IdentityAdapter.from_pretrained(place, weight_name=weight_name, variant=variant, **stored_dtype(place))
    if change is not None:
        adapter.load_state_dict(change(adapter.state_dict()))
    net = open_net(place)
    if target.suffix == ".safetensors":
        tensors = {} if net is None else {f"{NET}.{name}": tensor for name, tensor in net.state_dict().items()}
        header = {} if net is None else {NET: json.dumps(plain_config(net))}
        write(plain_config(adapter), adapter.state_dict(), target, tensors, header)
    elif target.suffix == ".bin":
        if net is not None:
            raise CheckpointError(f"'{target}' cannot contain the IdentityNet; write a .safetensors file instead.")
        write(plain_config(adapter), adapter.state_dict(), target)
    else:
        adapter.save_pretrained(target)
        if net is not None:
            net.save_pretrained(target / NET)
    return ["adapter"] if net is None else ["adapter", NET]


def local_copy(source: str, weight_name: str | None) -> Path:
    """The folder or file itself, or a local copy of the required files of a hub repository."""
    place = Path(adapter_place(source))
    if place.exists():
        return place
    file = find(source, weight_name)
    wanted = ["config.json", "*.safetensors"] if file is None else [file.name]
    return Path(snapshot_download(source, allow_patterns=[*wanted, *(f"{folder}/*" for folder in NET_FOLDERS)]))


def open_net(place: Path) -> IdentityNet | None:
    """The IdentityNet beside an adapter or in the same file, or `None`."""
    if place.is_file():
        if place.suffix != ".safetensors":
            return None
        with open_tensors(place) as file:
            has_net = NET in (file.metadata() or {})
        return IdentityNet.from_pretrained(place) if has_net else None
    for folder in NET_FOLDERS:
        if (place / folder).is_dir():
            return IdentityNet.from_pretrained(place, subfolder=folder, **stored_dtype(place / folder))
    return None


def stored_dtype(folder: Path) -> dict[str, Any]:
    """The type of a folder's tensors, which diffusers would convert to float32."""
    for file in sorted(folder.glob("*.safetensors")) if folder.is_dir() else ():
        with open_tensors(file) as opened:
            stored = {opened.get_tensor(name).dtype for name in opened.keys()}  # noqa: SIM118
            return {"torch_dtype": stored.pop()} if len(stored) == 1 and torch.float32 not in stored else {}
    return {}
