"""Conflicting gradients: how those of the identity losses and of all other losses are combined.

An identity loss and the denoising loss may ask for opposite changes of a weight. Their sum then improves one at the
expense of the other.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedType
from torch.distributed.tensor import DTensor

from ..errors import TrainingError

Coefficients = tuple[float, float]


def pcgrad(a: float, b: float, dot: float) -> Coefficients:
    """PCGrad (Yu et al., arXiv 2001.06782, algorithm 1) of two gradients: if their dot product is negative, each loses
    its component along the other: `gₐ − (gₐ·g_b / ‖g_b‖²) g_b`, and vice versa.

    Args:
        a: Squared norm of the first gradient, not 0.
        b: Squared norm of the second gradient, not 0.
        dot: Their dot product.

    Returns:
        The factors of both gradients in their sum.
    """
    return (1 - dot / a, 1 - dot / b) if dot < 0 else (1.0, 1.0)


def mgda(a: float, b: float, dot: float) -> Coefficients:
    """MGDA, the Pareto weights of two gradients: the convex combination of the smallest norm.

    `α = clip((g_b − gₐ)·g_b / ‖gₐ − g_b‖², 0, 1)`, and the update is `α gₐ + (1 − α) g_b` (Désidéri 2012; Sener and
    Koltun, arXiv 1810.04650, algorithm 1). It reduces both losses; its norm is at most that of the smaller gradient.
    Arguments and result as of `pcgrad`.
    """
    apart = a + b - 2 * dot
    share = min(max((b - dot) / apart, 0.0), 1.0) if apart > 0 else 0.5
    return share, 1 - share


_METHODS: dict[str, Callable[[float, float, float], Coefficients]] = {"pcgrad": pcgrad, "mgda": mgda}


class ConflictingGradients:
    """Combine the gradients of an update: call `add` before each backward pass, and `combine` after the last one.

    It costs one more backward pass of the identity losses, and the memory of one more gradient of the trained weights.
    With "sum" it costs nothing and changes nothing.

    Args:
        method: "sum", "pcgrad" or "mgda".
        parameters: Trained weights.
        accelerator: Accelerator of the run.

    Raises:
        TrainingError: The weights are sharded: their gradients cannot be computed twice.
    """

    def __init__(self, method: str, parameters: Sequence[torch.nn.Parameter], accelerator: Accelerator) -> None:
        self.name, self.method, self.parameters, self.accelerator = (
            method,
            _METHODS.get(method),
            parameters,
            accelerator,
        )
        sharded = accelerator.distributed_type in (DistributedType.FSDP, DistributedType.DEEPSPEED)
        sharded = sharded or any(isinstance(weight, DTensor) for weight in parameters)
        if self.method is not None and sharded:
            raise TrainingError(f"optimizer.combine={method} cannot be used with sharded weights (FSDP, DeepSpeed).")
        self._identity: list[torch.Tensor] | None = None

    def add(self, identity: torch.Tensor | None) -> None:
        """Add the gradient of the identity losses of one pass. The graph stays for the backward pass of all losses.

        Args:
            identity: `Weighted.identity` of the pass.

        Raises:
            TrainingError: There are no identity losses, or no others.
        """
        if self.method is None:
            return
        if identity is None:
            raise TrainingError(
                f"optimizer.combine={self.name} needs two kinds of losses, those on identity and others; the run has "
                "one. Use optimizer.combine=sum."
            )
        if self._identity is None:
            self._identity = [torch.zeros_like(weight) for weight in self.parameters]
        if not identity.requires_grad:  # no loss on faces counted
            return
        loss = identity.mean() / self.accelerator.gradient_accumulation_steps
        if self.accelerator.scaler is not None:
            loss = self.accelerator.scaler.scale(loss)
        found = torch.autograd.grad(loss, self.parameters, retain_graph=True, allow_unused=True)
        for whole, part in zip(self._identity, found, strict=True):
            if part is not None:
                whole += part

    def combine(self) -> dict[str, float]:
        """Replace the gradients of the weights, which are those of all losses, by the combination.

        Where one of the two gradients is zero or not finite, the sum stays.

        Returns:
            For the logs: the factors of both gradients and, if neither is zero, their cosine.
        """
        if self.method is None:
            return {}
        assert self._identity is not None
        identity, self._identity = self._identity, None
        if self.accelerator.num_processes > 1:
            flat = self.accelerator.reduce(torch.cat([part.flatten() for part in identity]), "mean")
            split = flat.split([part.numel() for part in identity])  # pyright: ignore[reportAttributeAccessIssue]
            identity = [part.view_as(weight) for part, weight in zip(split, self.parameters, strict=True)]
        pairs = [(p, w.grad) for p, w in zip(identity, self.parameters, strict=True) if w.grad is not None]
        a, b, dot = _products([(part, whole - part) for part, whole in pairs])
        if not (math.isfinite(a + b) and a > 0 and b > 0):
            return {"gradients/identity": 1.0, "gradients/others": 1.0}
        first, second = self.method(a, b, dot)
        for part, whole in pairs:  # first · identity + second · (all − identity)
            whole.mul_(second).add_(part, alpha=first - second)
        return {"gradients/cosine": dot / math.sqrt(a * b), "gradients/identity": first, "gradients/others": second}


def _products(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[float]:
    """Squared norms of two gradients, and their dot product, in float64."""
    total = torch.zeros(3, dtype=torch.float64, device=pairs[0][0].device if pairs else None)
    for first, second in ((x.double(), y.double()) for x, y in pairs):
        total += torch.stack([first.square().sum(), second.square().sum(), (first * second).sum()])
    return total.tolist()
