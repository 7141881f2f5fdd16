"""`Pairing`: how samples are made from targets."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import DataError
from .far import Far
from .poses import Poses


@dataclass(frozen=True, kw_only=True)
class Pairing:
    """Settings for making samples from target photos.

    Attributes:
        paired_ratio: Share of samples whose references are other photos; for the rest, the target is the reference.
        curriculum: Batches over which that share rises linearly from 0 to `paired_ratio`; 0 for `paired_ratio` from
            the start.
        references: Reference photos per sample; they are repeated if a person has fewer.
        far: What references are far from the target in: see `far_references`. With "", they are random photos.
        drop_text: Probability of dropping the prompt only (IP-Adapter uses 0.05 for each of the three).
        drop_identity: Probability of dropping the identity embedding only.
        drop_both: Probability of dropping both.
        component_dropout: Probability of setting each number of an embedding to zero (IDiff-Face, arXiv 2308.04995:
            0.25); the others are scaled up accordingly.
        moves: Name of an attribute → how far embeddings are moved along its direction at most, in steps: a different
            amount in each sample, uniform in both ways. The target stays, so that tokens do not carry the attribute
            (after MasterWeaver's augmented faces, arXiv 2405.05806). See `idgen.attributes`.
        flip: Probability of mirroring the target.
        poses: How aligned faces are turned, scaled and shifted at random.

    Raises:
        DataError: A share is not one.
    """

    paired_ratio: float = 1.0
    curriculum: int = 0
    references: int = 1
    far: Far = ""
    drop_text: float = 0.05
    drop_identity: float = 0.05
    drop_both: float = 0.05
    component_dropout: float = 0.0
    moves: Mapping[str, float] = field(default_factory=dict)
    flip: float = 0.5
    poses: Poses = field(default_factory=Poses)

    def __post_init__(self) -> None:
        shares = (self.paired_ratio, self.component_dropout, self.flip)
        drops = (self.drop_text, self.drop_identity, self.drop_both)
        if not all(0 <= share <= 1 for share in (*shares, *drops)) or sum(drops) > 1 or self.component_dropout == 1:
            raise DataError(f"Probabilities must be between 0 and 1: {self}.")
        if not all(0 <= most < math.inf for most in self.moves.values()):
            raise DataError(f"moves must be finite numbers >= 0, got {dict(self.moves)}.")
        if self.references < 1:
            raise DataError(f"references must be >= 1, got {self.references}.")
        if self.curriculum < 0:
            raise DataError(f"curriculum must be >= 0 batches, got {self.curriculum}.")

    def share_of_others(self, batch: int | None) -> float:
        """The share of samples whose references are other photos, in this batch of a run; `None` for the last one."""
        done = 1.0 if batch is None or not self.curriculum else min(1.0, batch / self.curriculum)
        return done * self.paired_ratio
