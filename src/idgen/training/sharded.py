"""Weights that FSDP has split over the processes: whole for the time they are looked at, and back.

Every function here is called by all processes together. What is not split passes through.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn
from torch.distributed.tensor import DTensor, distribute_tensor


def whole_tensor(tensor: torch.Tensor) -> torch.Tensor:
    """All of a tensor, on each process."""
    return tensor.full_tensor() if isinstance(tensor, DTensor) else tensor


def split_like(whole: torch.Tensor, part: torch.Tensor) -> torch.Tensor:
    """A whole tensor, split and placed as another one is."""
    if isinstance(part, DTensor):
        return distribute_tensor(whole.to(part.device), part.device_mesh, part.placements)
    return whole.to(part.device)


@contextmanager
def whole_parameters(module: nn.Module, write: bool = False) -> Iterator[None]:
    """Let a module hold whole parameters inside the `with`.

    Args:
        module: Whose parameters may be split.
        write: Whether what they are at the end is kept.
    """
    split = [
        (owner, name, part)
        for owner in module.modules()
        for name, part in owner._parameters.items()
        if isinstance(part, DTensor)
    ]
    hooks = {owner: owner._load_state_dict_post_hooks for owner, _, _ in split}
    for owner in hooks:  # FSDP's expect split weights after load_state_dict
        owner._load_state_dict_post_hooks = OrderedDict()
    for owner, name, part in split:
        owner._parameters[name] = nn.Parameter(whole_tensor(part.detach()), part.requires_grad)
    try:
        yield
    finally:
        for owner, name, part in split:
            now = owner._parameters[name]
            if write and now is not None:
                with torch.no_grad():
                    part.copy_(split_like(now.detach(), part))
            owner._parameters[name] = part
        for owner, before in hooks.items():
            owner._load_state_dict_post_hooks = before
