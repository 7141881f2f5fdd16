"""What an adapter reads of people: embeddings and, for some adapters, image features, one row per photo or person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F

from ...adapter import IdentityAdapter, IdentityTokens
from ...errors import EncoderMismatchError, IdentityError
from ...identity import Identity


@dataclass(frozen=True, eq=False)
class Rows:
    """Inputs of a projection.

    Attributes:
        embeds: (rows, embedding_dim), raw or of unit length, as the adapter reads them.
        features: (rows, n, feature_dim), or `None` for an adapter that reads none.
    """

    embeds: torch.Tensor
    features: torch.Tensor | None = None

    @classmethod
    def of(cls, adapter: IdentityAdapter, person: Identity) -> Self:
        """Each photo of a person, and their mean in the last row.

        Raises:
            EncoderMismatchError: The identity is of another face encoder than the adapter reads.
            IdentityError: The adapter reads image features and the identity has none, or of another width.
        """
        config, width = adapter.config, adapter.feature_dim
        if (person.encoder, person.dim) != (config["encoder"], config["embedding_dim"]):
            raise EncoderMismatchError(
                f"The adapter reads embeddings of '{config['encoder']}', not those of {person}."
            )
        normalised = config["normalised"]
        photos, mean = person.by_photo(normalised=normalised), person.embedding(normalised=normalised)
        embeds = torch.cat([photos, mean[None]]).to(adapter.device)
        if width is None:
            return cls(embeds)
        if person.features is None or person.features.shape[-1] != width:
            raise IdentityError(f"The adapter reads image features of width {width}, which {person} does not have.")
        features = torch.cat([person.features.float(), person.mean_features()[None]])
        return cls(embeds, features.to(adapter.device))

    @classmethod
    def cat(cls, parts: Sequence[Self]) -> Self:
        """All rows of several."""
        features = [part.features for part in parts if part.features is not None]
        return cls(torch.cat([part.embeds for part in parts]), torch.cat(features) if features else None)

    def __getitem__(self, index: Any) -> Self:
        """The rows of a slice, of indices or of a mask."""
        return type(self)(self.embeds[index], None if self.features is None else self.features[index])

    def __len__(self) -> int:
        return len(self.embeds)

    @property
    def directions(self) -> torch.Tensor:
        """(rows, embedding_dim), the embeddings scaled to unit length."""
        return F.normalize(self.embeds, dim=-1)

    def mean(self) -> Self:
        """One row: the mean direction at the mean length, and the mean features."""
        length = self.embeds.norm(dim=-1).mean()
        embeds = F.normalize(self.directions.mean(0, keepdim=True), dim=-1) * length
        return type(self)(embeds, None if self.features is None else self.features.mean(0, keepdim=True))

    def moved(self, change: Self) -> Self:
        """The rows plus a change; embeddings keep their length."""
        embeds = F.normalize(self.embeds + change.embeds, dim=-1) * self.embeds.norm(dim=-1, keepdim=True)
        features = None
        if self.features is not None and change.features is not None:
            features = self.features + change.features
        return type(self)(embeds, features)

    def mixed(self, others: Self, share: torch.Tensor) -> Self:
        """The rows with a share, (rows,), of others; embeddings keep their length."""
        change = Rows(
            share[:, None] * (others.embeds - self.embeds),
            None
            if self.features is None or others.features is None
            else share[:, None, None] * (others.features - self.features),
        )
        return self.moved(change)  # pyright: ignore[reportArgumentType]

    def step_towards(self, others: Self, share: torch.Tensor) -> Self:
        """The change from these rows towards others, as long as a share, (rows,), of each row's own length."""
        features = None
        if self.features is not None and others.features is not None:
            features = _step(self.features, others.features, share)
        return type(self)(_step(self.embeds, others.embeds, share), features)

    def tokens(self, adapter: IdentityAdapter) -> IdentityTokens:
        """The tokens and pseudo-words of each row, with a gradient, for forwards without guidance."""
        embeds, features = self.embeds, self.features
        if not adapter.config["pool_photos"]:  # such adapters read (rows, photos, …)
            embeds, features = embeds[:, None], None if features is None else features[:, None]
        tokens = adapter(embeds, features)
        return IdentityTokens(tokens, torch.zeros_like(tokens[:1]), adapter.words(self.embeds), self.embeds)


def _step(start: torch.Tensor, end: torch.Tensor, share: torch.Tensor) -> torch.Tensor:
    direction, length = (end - start).flatten(1), start.flatten(1).norm(dim=-1)
    step = F.normalize(direction, dim=-1) * (share * length)[:, None]
    return step.view_as(start)
