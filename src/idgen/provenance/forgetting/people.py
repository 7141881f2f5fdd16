"""The people of a forgetting: those who are forgotten with everything near them, and those who are kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F

from ...adapter import IdentityAdapter
from ...errors import ProvenanceError
from ...faces import EncoderStatistics
from ...faces.space import FaceSpace
from ...identity import Identity
from .rows import Rows

FALSE_MATCH_RATE = 1e-3


class Forgotten(NamedTuple):
    """A person to forget.

    Attributes:
        rows: Each photo, and the mean in the last row.
        reach: Largest change of an embedding, relative to its length, at which it is still taken for the person.
    """

    rows: Rows
    reach: float

    @property
    def mean(self) -> Rows:
        """One row."""
        return self.rows[-1:]

    def draw(self, count: int, kept: Kept, random: torch.Generator) -> Rows:
        """Inputs near the person, at random distances up to `reach` and in the directions of kept people."""
        centre = self.rows[torch.randint(len(self.rows), (count,), generator=random)]
        share = self.reach * torch.rand(count, generator=random).sqrt()
        return centre.moved(centre.step_towards(kept.draw(count, random), share.to(centre.embeds)))


@dataclass(frozen=True, eq=False, kw_only=True)
class Kept:
    """People whose pictures stay as they are: drawn from the encoder's space, or mixed from given ones.

    Attributes:
        space: The encoder's space; `None` if `given` are mixed instead, for adapters that read image features.
        given: Rows of people to keep, or `None`.
        normalised: Whether the adapter reads embeddings of unit length.
        device: Device of the adapter.
    """

    space: FaceSpace | None
    given: Rows | None
    normalised: bool
    device: torch.device

    @classmethod
    def of(cls, adapter: IdentityAdapter, given: Sequence[Identity]) -> Kept:
        """Choose how people are drawn.

        Raises:
            ProvenanceError: The adapter reads image features, and fewer than two people to keep are given.
        """
        rows = Rows.cat([Rows.of(adapter, person) for person in given]) if given else None
        config = adapter.config
        if adapter.feature_dim is not None and len(given) < 2:
            raise ProvenanceError(
                "The adapter reads image features, which cannot be drawn at random: give at least two other people "
                "to keep (--keep)."
            )
        space = None
        if adapter.feature_dim is None:
            space = FaceSpace.for_encoder(config["encoder"], config["embedding_dim"])
        return cls(space=space, given=rows, normalised=config["normalised"], device=adapter.device)

    def draw(self, count: int, random: torch.Generator) -> Rows:
        """Random people; a quarter of them are given ones, if there are any."""
        if self.space is None:
            assert self.given is not None
            first, second = (self.given[torch.randint(len(self.given), (count,), generator=random)] for _ in range(2))
            return first.mixed(second, torch.rand(count, generator=random).to(self.device))
        embeds = self.space.draw_many(count, random)
        drawn = Rows((F.normalize(embeds, dim=-1) if self.normalised else embeds).to(self.device))
        if self.given is None:
            return drawn
        known = self.given[torch.randint(len(self.given), (count // 4,), generator=random)]
        return Rows.cat([drawn[count // 4 :], known])

    def lookalikes(self, person: Rows, threshold: float, count: int, random: torch.Generator) -> Rows:
        """People who resemble a person and are not taken for them: their cosine is just below the threshold.

        Args:
            person: One row.
            threshold: Cosine from which somebody is taken for the person.
            count: Number of people.
            random: Generator.
        """
        others, own = self.draw(count, random), person.directions
        cosine = others.directions @ own.T
        side = F.normalize(others.directions - cosine * own, dim=-1)
        room = (threshold - cosine.mean()).clamp(min=0) / 3
        wanted = threshold - room * torch.rand(count, 1, generator=random).to(own)
        turned = wanted * own + (1 - wanted.square()).sqrt() * side
        return Rows(turned * others.embeds.norm(dim=-1, keepdim=True), others.features)


def match_threshold(encoder: str, given: float | None) -> float:
    """The given threshold, or that of the encoder's statistics.

    Raises:
        ProvenanceError: Neither is known.
    """
    if given is not None:
        return given
    statistics = EncoderStatistics.find(encoder)
    if statistics is None:
        raise ProvenanceError(
            f"It is not known how near two embeddings of '{encoder}' must be to show one person: give --threshold, or "
            "measure the encoder with `idgen calibrate`."
        )
    return statistics.threshold(FALSE_MATCH_RATE)
