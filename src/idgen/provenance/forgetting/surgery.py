"""Gradient surgery: forgetting must not undo keeping."""

from __future__ import annotations

from collections.abc import Sequence

import torch


def combined(forget: torch.Tensor, keep: torch.Tensor, weights: Sequence[torch.nn.Parameter]) -> None:
    """Set the gradients of weights to those of two losses, without the part of forgetting that acts against keeping.

    `g_f ← g_f − (g_f·g_k / ‖g_k‖²) g_k` where the product is negative: the concept-preserving gradient of DoCo
    (arXiv 2405.15304). The result is `g_f + g_k`. Weights that no loss reads have no gradient.

    Args:
        forget: Loss of forgetting.
        keep: Loss of keeping.
        weights: Trained weights.
    """
    first = torch.autograd.grad(forget, weights, retain_graph=keep.requires_grad, allow_unused=True)
    second: Sequence[torch.Tensor | None] = (
        torch.autograd.grad(keep, weights, allow_unused=True) if keep.requires_grad else [None] * len(weights)
    )
    both = [(f, k) for f, k in zip(first, second, strict=True) if f is not None and k is not None]
    product = sum(float((f * k).sum()) for f, k in both)
    power = sum(float(k.square().sum()) for _, k in both)
    share = 1 - product / power if product < 0 < power else 1.0
    for weight, f, k in zip(weights, first, second, strict=True):
        parts = [part for part in (f, None if k is None else share * k) if part is not None]
        weight.grad = sum(parts[1:], parts[0]) if parts else None
