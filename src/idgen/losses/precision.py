"""The precision of a network."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import torch


def network_dtype(network: Any, dtype: torch.dtype) -> torch.dtype:
    """The dtype of a network's weights in a run with the given dtype.

    A VAE whose activations overflow float16 has `force_upcast` in its configuration (SDXL's); it then computes in
    float32, as in diffusers' pipelines.
    """
    config = getattr(network, "config", None)
    overflows = dtype == torch.float16 and getattr(config, "force_upcast", False)
    return torch.float32 if overflows else dtype


@contextmanager
def own_precision(network: Any) -> Iterator[None]:
    """Compute in the dtype of the network's weights inside the `with`, also within autocast."""
    kind = network.device.type
    with torch.autocast(kind, enabled=False) if torch.amp.is_autocast_available(kind) else nullcontext():
        yield


@contextmanager
def full_precision(tensor: torch.Tensor) -> Iterator[None]:
    """Compute in the dtype of the tensors inside the `with`, also within autocast.

    Cosines are divided by temperatures below 0.01, where the three digits of bfloat16 are too few.
    """
    with torch.autocast(tensor.device.type, enabled=False):
        yield
