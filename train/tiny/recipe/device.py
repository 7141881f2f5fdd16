"""Where the training runs, and what is switched on there."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import torch
from torch import nn

Module = TypeVar("Module", bound=nn.Module)


def device() -> torch.device:
    """The first GPU if there is one, with products in TF32, else the processor."""
    if not torch.cuda.is_available():
        return torch.device("cpu")
    torch.set_float32_matmul_precision("high")
    return torch.device("cuda")


def autocast() -> AbstractContextManager:
    """bfloat16 on a GPU; on processors without matrix units it is many times slower, so float32 there."""
    return torch.autocast("cuda", torch.bfloat16) if torch.cuda.is_available() else nullcontext()


def place(module: Module) -> Module:
    """Move to the device in channels-last order, which is a seventh faster on two cores."""
    return module.to(device(), memory_format=torch.channels_last)  # type: ignore[call-overload]


def fast(module: Module) -> Module:
    """Compile in place on a GPU; on two cores the minutes of compiling do not come back."""
    if torch.cuda.is_available():
        module.compile()
    return module
