"""The device of the trainings, and the optimisations that are used on it."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def device() -> torch.device:
    """The first GPU, with matrix products in TF32, or the CPU."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.set_float32_matmul_precision("high")
    return torch.device("cuda")


def autocast() -> AbstractContextManager:
    """bfloat16 on a GPU; float32 on a CPU, where bfloat16 is many times slower without matrix units."""
    return torch.autocast("cuda", torch.bfloat16) if torch.cuda.is_available() else nullcontext()


def place(module: Module) -> Module:
    """Move to the device in channels-last memory format, which is 15 % faster on two cores."""
    return module.to(device(), memory_format=torch.channels_last)  # type: ignore[call-overload]


def fast(module: Module) -> Module:
    """Compile in place on a GPU; on two cores compiling takes longer than it saves."""
    if torch.cuda.is_available():
        module.compile()
    return module
