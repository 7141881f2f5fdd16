"""Which precision a network computes in."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch


def network_dtype(network: Any, dtype: torch.dtype) -> torch.dtype:
    """The type for the weights of a network in a run of a precision.

    A VAE whose activations overflow float16 says so in its configuration (`force_upcast`, SDXL's); it computes in
    float32 then, as in diffusers' pipelines.
    """
    config = getattr(network, "config", None)
    overflows = dtype == torch.float16 and getattr(config, "force_upcast", False)
    return torch.float32 if overflows else dtype


@contextmanager
def own_precision(network: Any) -> Iterator[None]:
    """Compute in the type of the network's weights inside the `with`, whatever autocast is set to."""
    with torch.autocast(network.device.type, enabled=False):
        yield
