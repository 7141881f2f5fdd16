"""Fingerprints of adapters: each recipient's copy has weights that differ a little, and a leaked copy can be traced.

A spread-spectrum watermark (Cox et al. 1997, "Secure Spread Spectrum Watermarking for Multimedia") in the weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from math import log, sqrt

import torch

from ..errors import ProvenanceError
from .tracing_key import TracingKey, check_recipient

STRENGTH = 0.01
"""Change of a weight, in standard deviations of the weights of its matrix."""

FALSE_POSITIVE_RATE = 1e-6
"""How often, at most, a copy without a fingerprint is traced to any recipient; see `Trace`."""

Weights = Mapping[str, torch.Tensor]


@dataclass(frozen=True)
class Trace:
    """How well a copy fits a recipient's fingerprint.

    Attributes:
        recipient: Number of the recipient.
        score: About the number of standard deviations by which it exceeds the score of a copy without this
            fingerprint.
        threshold: Score from which the copy is the recipient's. A copy that was not made for any of the recipients
            that were tried reaches it with a probability of at most 1e-6, whatever its weights are: its score is a sum
            of terms with random signs, and Hoeffding's inequality bounds those.
    """

    recipient: int
    score: float
    threshold: float

    @property
    def found(self) -> bool:
        """Whether the copy has the recipient's fingerprint."""
        return self.score >= self.threshold


def fingerprint_weights(
    weights: Weights, key: TracingKey, recipient: int, strength: float = STRENGTH
) -> dict[str, torch.Tensor]:
    """A copy of the weights with a recipient's fingerprint.

    Each number in a matrix is raised or lowered by `strength` standard deviations of the matrix, by the key's secret
    bits. Vectors (biases, norms) and matrices of equal numbers stay as they are.

    Args:
        weights: State dict of an adapter.
        key: Key of the publisher.
        recipient: A number from 0 to 255.
        strength: 0 gives the same weights.

    Raises:
        ProvenanceError: The recipient is out of range, or the strength is negative or not finite.
    """
    check_recipient(recipient)
    if not 0 <= strength < float("inf"):
        raise ProvenanceError(f"strength must be finite and at least 0, got {strength}.")
    marked = dict(weights)
    for name in _matrices(weights) if strength else ():
        wide = weights[name].float()
        signs = _signs(key, recipient, name, wide.shape).to(wide.device)
        marked[name] = (wide + strength * wide.std() * signs).to(weights[name].dtype)
    return marked


def trace_weights(
    copy: Weights, key: TracingKey, recipients: Sequence[int], original: Weights | None = None
) -> list[Trace]:
    """The recipients of a copy of an adapter, the best fit first.

    Args:
        copy: State dict of the copy, which may have been trained further, rounded or averaged with others.
        key: Key of the publisher.
        recipients: Numbers that were given to `fingerprint_weights`.
        original: State dict of the adapter before it was marked. Without it, only fingerprints in large adapters that
            were not trained much further are found.

    Raises:
        ProvenanceError: There are no recipients, or copy and original have no matrix in common.
    """
    if not recipients:
        raise ProvenanceError("At least one recipient is required.")
    changes = dict(_changes(copy, original))
    if not changes:
        raise ProvenanceError("The copy and the original have no matrix in common: they are different adapters.")
    length = sqrt(sum(float(change.square().sum()) for change in changes.values())) or 1.0
    threshold = sqrt(2 * log(len(recipients) / FALSE_POSITIVE_RATE))
    traces = []
    for recipient in recipients:
        check_recipient(recipient)
        fit = sum(
            float((change * _signs(key, recipient, name, change.shape)).sum()) for name, change in changes.items()
        )
        traces.append(Trace(recipient, fit / length, threshold))
    return sorted(traces, key=lambda trace: -trace.score)


def _changes(copy: Weights, original: Weights | None) -> Iterator[tuple[str, torch.Tensor]]:
    """What could be a fingerprint in each matrix of a copy, as a matched filter weighs it.

    The part that is a multiple of the original is left out, so that a scaled copy is traced too.
    """
    for name in _matrices(copy):
        change = deviation = copy[name].float().cpu()
        if original is not None:
            if name not in original or original[name].shape != change.shape:
                continue
            base = deviation = original[name].float().cpu()
            change = change - base * (change * base).sum() / base.square().sum().clamp(min=1e-30)
        power = change.square().mean()
        if power > 0 and torch.isfinite(power):
            yield name, change * (deviation.std() / power)


def _matrices(weights: Weights) -> list[str]:
    return [name for name, value in weights.items() if value.is_floating_point() and value.ndim > 1]


def _signs(key: TracingKey, recipient: int, name: str, shape: torch.Size) -> torch.Tensor:
    """1 or -1 for each number of a matrix."""
    bits = torch.from_numpy(key.bits(shape.numel(), "fingerprint", recipient, name))
    return (2.0 * bits - 1).view(shape)
