"""Operators of the ONNX standard that face recognisers use, as torch functions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F

from ..errors import CheckpointError

Operator = Callable[..., torch.Tensor]


def _convolution(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor | None = None,
    *,
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    dilations: Sequence[int] = (1, 1),
    group: int = 1,
    kernel_shape: Sequence[int] = (),
    auto_pad: bytes = b"NOTSET",
) -> torch.Tensor:
    return F.conv2d(_padded(x, pads, auto_pad), weight, bias, tuple(strides), 0, tuple(dilations), group)


def _padded(x: torch.Tensor, pads: Sequence[int], auto_pad: bytes) -> torch.Tensor:
    """Pad by (top, left, bottom, right), as ONNX orders them."""
    if auto_pad not in (b"NOTSET", b"VALID", b""):
        raise CheckpointError(f"Padding by {auto_pad.decode()} is not supported; export with explicit pads.")
    top, left, bottom, right = pads
    return F.pad(x, (left, right, top, bottom)) if any(pads) else x


def _average_pool(
    x: torch.Tensor,
    *,
    kernel_shape: Sequence[int],
    strides: Sequence[int] = (1, 1),
    pads: Sequence[int] = (0, 0, 0, 0),
    count_include_pad: int = 0,
    ceil_mode: int = 0,
    auto_pad: bytes = b"NOTSET",
) -> torch.Tensor:
    if any(pads) and not count_include_pad:
        raise CheckpointError("An average that leaves out its padding is not supported.")
    return F.avg_pool2d(_padded(x, pads, auto_pad), tuple(kernel_shape), tuple(strides), ceil_mode=bool(ceil_mode))


def _batch_norm(
    x: torch.Tensor,
    weight: torch.Tensor,
    bias: torch.Tensor,
    mean: torch.Tensor,
    variance: torch.Tensor,
    *,
    epsilon: float = 1e-5,
    **_: Any,
) -> torch.Tensor:
    return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=epsilon)


def _gemm(a: torch.Tensor, b: torch.Tensor, c: torch.Tensor | None = None, **settings: Any) -> torch.Tensor:
    a, b = (m.T if settings.get(f"trans{name}") else m for m, name in ((a, "A"), (b, "B")))
    product = settings.get("alpha", 1.0) * (a @ b)
    return product if c is None else product + settings.get("beta", 1.0) * c


def _reshape(x: torch.Tensor, shape: torch.Tensor, *, allowzero: int = 0) -> torch.Tensor:
    return x.reshape(_sides(x, shape, allowzero))


def _reshape_batch(x: torch.Tensor, shape: torch.Tensor, *, allowzero: int = 0) -> torch.Tensor:
    """The first side stays the batch's, also in a network that was exported for a batch of one."""
    return x.reshape(len(x), *_sides(x, shape, allowzero)[1:])


def _sides(x: torch.Tensor, shape: torch.Tensor, allowzero: int) -> list[int]:
    return [x.shape[i] if side == 0 and not allowzero else side for i, side in enumerate(shape.tolist())]


def _axes(axes: torch.Tensor | None, settings: dict[str, Any]) -> list[int] | None:
    """They are a tensor since operator set 13, an attribute before."""
    return settings.get("axes") if axes is None else axes.flatten().tolist()


def _unsqueeze(x: torch.Tensor, axes: torch.Tensor | None = None, **settings: Any) -> torch.Tensor:
    for axis in sorted(_axes(axes, settings) or ()):
        x = x.unsqueeze(axis)
    return x


def _gather(x: torch.Tensor, index: torch.Tensor, *, axis: int = 0) -> torch.Tensor:
    return x.select(axis, int(index)) if index.ndim == 0 else x.index_select(axis, index.flatten())


def _prelu(x: torch.Tensor, slope: torch.Tensor) -> torch.Tensor:
    return torch.where(x > 0, x, x * slope)


def _clip(x: torch.Tensor, low: Any = None, high: Any = None, **limits: float) -> torch.Tensor:
    return x.clamp(limits.get("min", low), limits.get("max", high))  # attributes before operator set 11


OPERATORS: dict[str, Operator] = {
    "Add": torch.add,
    "AveragePool": _average_pool,
    "BatchNormalization": _batch_norm,
    "Cast": lambda x, *, to, **_: x.float() if x.is_floating_point() else x,
    "Clip": _clip,
    "Concat": lambda *tensors, axis: torch.cat(tensors, axis),
    "Conv": _convolution,
    "Dropout": lambda x, *_, **__: x,
    "Flatten": lambda x, *, axis=1: x.flatten(axis),
    "Gather": _gather,
    "Gemm": _gemm,
    "GlobalAveragePool": lambda x: x.mean((2, 3), keepdim=True),
    "Identity": lambda x: x,
    "MatMul": torch.matmul,
    "Mul": torch.mul,
    "PRelu": _prelu,
    "Relu": torch.relu,
    "Reshape": _reshape,
    "Shape": lambda x: torch.tensor(x.shape),
    "Sigmoid": torch.sigmoid,
    "Sub": torch.sub,
    "Transpose": lambda x, *, perm: x.permute(*perm),
    "Unsqueeze": _unsqueeze,
}
"""Operators on constants, by name."""

BATCH_OPERATORS = {**OPERATORS, "Reshape": _reshape_batch}
"""Operators on the activations of a batch of images, by name."""
