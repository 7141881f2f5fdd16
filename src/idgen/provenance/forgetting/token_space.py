"""Tokens and pseudo-words as vectors, and the search for inputs whose vectors are near a person's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import torch

from ...adapter import IdentityAdapter
from .rows import Rows

STEP = 0.5
"""Length of a step of the search, relative to how far it may go."""


@dataclass(frozen=True, eq=False)
class TokenSpace:
    """Scales tokens and pseudo-words so that the squared distance of two random people is 2.

    Tokens, and the pseudo-words for each text encoder, have equal weight. The scale is the deviation between people,
    so that a distance means the same for every projection.

    Attributes:
        scales: For each part.
    """

    scales: tuple[float, ...]

    @classmethod
    @torch.no_grad()
    def of(cls, adapter: IdentityAdapter, people: Rows) -> Self:
        """Measure the deviations on random people."""
        parts = _parts(adapter, people)
        deviations = [float(part.var(0).sum().sqrt()) for part in parts]
        return cls(tuple(len(parts) ** -0.5 / max(deviation, 1e-12) for deviation in deviations))

    def read(self, adapter: IdentityAdapter, rows: Rows) -> torch.Tensor:
        """(rows, dim), with a gradient."""
        return torch.cat([scale * x for scale, x in zip(self.scales, _parts(adapter, rows), strict=True)], -1)

    def search(
        self, adapter: IdentityAdapter, start: Rows, centre: Rows, target: torch.Tensor, reach: float, steps: int
    ) -> Rows:
        """Move inputs so that their vectors come near a target: projected gradient descent (AdvUnlearn's inner loop).

        Args:
            adapter: The adapter that is attacked.
            start: Where the search starts.
            centre: One row, the input from which the result differs by at most `reach`.
            target: (dim,), such as the person's vector in the adapter before it forgot them.
            reach: Largest change of embedding and features, relative to their length.
            steps: Gradient steps.

        Returns:
            As many rows as `start`.
        """
        found = start
        for _ in range(steps):
            watched = Rows(
                *(None if x is None else x.detach().requires_grad_() for x in (found.embeds, found.features))  # pyright: ignore
            )
            distance = (self.read(adapter, watched) - target).square().sum()
            inputs = [x for x in (watched.embeds, watched.features) if x is not None]
            gradients = torch.autograd.grad(distance, inputs, allow_unused=True)
            moved = [
                x.detach() if slope is None else _descended(x.detach(), slope, middle, reach)  # pyright: ignore
                for x, slope, middle in zip(inputs, gradients, (centre.embeds, centre.features), strict=False)
            ]
            found = Rows(*moved)
        return found


def _parts(adapter: IdentityAdapter, rows: Rows) -> list[torch.Tensor]:
    tokens = rows.tokens(adapter)
    return [part.flatten(1).float() for part in (tokens.tokens, *tokens.words) if part is not None]


def _descended(x: torch.Tensor, slope: torch.Tensor, centre: torch.Tensor, reach: float) -> torch.Tensor:
    """One step against a gradient, back into the ball around the centre, at the centre's length."""
    axes = tuple(range(1, x.ndim))
    length = centre.norm()
    step = STEP * reach * length * slope / slope.pow(2).sum(axes, keepdim=True).sqrt().clamp(min=1e-12)
    change = x - step - centre
    size = change.pow(2).sum(axes, keepdim=True).sqrt()
    x = centre + change * (reach * length / size.clamp(min=1e-12)).clamp(max=1)
    return x / x.pow(2).sum(axes, keepdim=True).sqrt() * length if x.ndim == 2 else x
