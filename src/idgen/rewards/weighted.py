"""Several rewards → one."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import LossError
from ..losses import WeightedTerms


@dataclass(frozen=True, eq=False)
class WeightedRewards(WeightedTerms):
    """A weighted sum of named rewards; called with the inputs, it gives `values`, (batch,), and a log of each.

    A reward is any callable that returns one number per sample: a tensor, an array or a list. One that returns no
    tensor has no gradient, and serves methods that need none. ID-Aligner (arXiv 2404.15449) weighs identity with 0.2
    and aesthetics with 0.001. A sample without a face gets no identity reward: 0, as for somebody wholly unlike.

    Raises:
        LossError: As `WeightedTerms`, or a reward has a gate: finished pictures have no timestep.
    """

    def __post_init__(self) -> None:
        super().__post_init__()
        gated = [name for name, term in self.terms.items() if term.gate is not None]
        if gated:
            raise LossError(f"Rewards judge finished pictures, which have no timestep; {gated} have a gate.")
