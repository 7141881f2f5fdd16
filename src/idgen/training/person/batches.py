"""Batches of one person's pictures, half of them prior pictures of other people."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from ..batch import Batch

PROMPTS = ("a photo of {}", "a portrait of {}", "a picture of {}")
"""Prompts of the photos and the prior pictures; `{}` is the person or the class word."""


@dataclass(eq=False, kw_only=True)
class PersonBatches:
    """Endless batches that depend on their number alone; see `Batches`.

    Attributes:
        latents: (pictures, channels, height, width), of the person.
        landmarks: (pictures, 5, 2).
        embeds: (pictures, dim), embeddings of the photo of each picture by the encoder of the losses.
        prior: (prior, channels, height, width), latents of the prior pictures; empty for none.
        id_embeds: (dim,) or (photos, dim), the person as the adapter reads it.
        encoder: Name of the adapter's face encoder.
        person: The person in prompts.
        others: The other people in prompts.
        size: Samples per batch.
        side: Side of the pictures in pixels.
        rank: Number of this process.
        world: Number of processes.
        seed: Seed of the draws.
    """

    latents: torch.Tensor
    landmarks: torch.Tensor
    embeds: torch.Tensor
    prior: torch.Tensor
    id_embeds: torch.Tensor
    encoder: str
    person: str
    others: str
    size: int
    side: int
    rank: int = 0
    world: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        self.number = 0

    def __iter__(self) -> Iterator[Batch]:
        """Continue from the current position."""
        while True:
            number, self.number = self.number, self.number + self.world
            yield self.make(number + self.rank)

    def state_dict(self) -> dict[str, Any]:
        """The position, the same on all processes."""
        return {"number": self.number}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the position."""
        self.number = state["number"]

    def make(self, number: int) -> Batch:
        """The batch with this number: pictures of the person first, then as many prior pictures."""
        random = np.random.default_rng((self.seed, number))
        others = self.size // 2 if len(self.prior) else 0
        chosen = random.integers(len(self.latents), size=self.size - others)
        drawn = random.integers(max(len(self.prior), 1), size=others)
        prompts = [PROMPTS[i] for i in random.integers(len(PROMPTS), size=self.size)]
        shown = [self.person] * len(chosen) + [self.others] * others
        has_identity = torch.arange(self.size) < len(chosen)
        return Batch(
            latents=torch.cat([self.latents[chosen], self.prior[drawn]]),
            prompts=tuple(prompt.format(who) for prompt, who in zip(prompts, shown, strict=True)),
            id_embeds=self.id_embeds * has_identity.view(-1, *[1] * self.id_embeds.ndim),
            encoder=self.encoder,
            target_embeds=_padded(self.embeds[chosen], self.size),
            landmarks=_padded(self.landmarks[chosen], self.size),
            face_found=has_identity,
            has_identity=has_identity,
            persons=torch.zeros(self.size, dtype=torch.long) - (~has_identity).long(),
            time_ids=torch.tensor([self.side, self.side, 0, 0, self.side, self.side]).expand(self.size, -1),
        )


def _padded(rows: torch.Tensor, size: int) -> torch.Tensor:
    """Rows, and copies of the first one for prior pictures, where nothing reads them."""
    return torch.cat([rows, rows[:1].expand(size - len(rows), *rows.shape[1:])])
