"""Triplets for explicit supervision: a photo, the photo with another person's face in it, and the person."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..errors import DataError, IdgenError
from ..identity import Identity
from ..weights_key import network_key, pipeline_key
from .bank import IdentityBank
from .columns import Entry, column_key
from .makers import LatentMaker
from .manifest import Manifest

TRIPLETS = "triplets"
SPLIT = "train"
"""Only photos that are trained on get a triplet."""


@dataclass
class TripletMaker:
    """Latents of photos in which the present model has replaced the face by that of another person, as `LatentMaker`
    makes those of the photos (the pseudo-targets of DreamID, arXiv 2504.14509).

    The other person is drawn at random from the training split, by the hash of the photo.

    Attributes:
        shards: Folder or URL of the set.
        pipeline: A pipeline with one identity adapter.
        latents: Encodes the pictures.
        identity_net: Keeps the pose.
    """

    shards: str
    pipeline: Any
    latents: LatentMaker
    identity_net: Any = None
    name: str = TRIPLETS
    parallel: bool = False
    _bank: IdentityBank | None = field(default=None, init=False)

    @property
    def adapter(self) -> Any:
        """The identity adapter of the pipeline."""
        [loaded] = self.pipeline.id_adapters.values()
        return loaded

    def key(self) -> str:
        net = [] if self.identity_net is None else [network_key(self.identity_net)]
        return f"{self.latents.key()}/swapped-{'-'.join([pipeline_key(self.pipeline), *net])}"

    def __call__(self, entries: Sequence[Entry]) -> list[torch.Tensor]:
        found = [torch.zeros(0)] * len(entries)
        trained = [i for i, entry in enumerate(entries) if entry.row["split"] == SPLIT]
        if trained:
            swapped = [entries[i]._replace(photo=self._swap(entries[i])) for i in trained]
            for i, latents in zip(trained, self.latents(swapped), strict=True):
                found[i] = latents
        return found

    def _swap(self, entry: Entry) -> np.ndarray:
        seed = int(entry.row["sha256"][:12], 16) + entry.row["face"]
        try:
            edited = self.pipeline.swap(
                entry.photo,
                id_embeds=self._other_person(entry.row["person"], np.random.default_rng(seed)),
                landmarks=entry.landmarks,
                identity_net=self.identity_net,
                generator=torch.Generator().manual_seed(seed),
            )
        except IdgenError as error:
            raise DataError(f"The face of '{entry.row['key']}' cannot be replaced: {error}") from error
        return np.asarray(edited.images[0])

    def _other_person(self, person: str, random: np.random.Generator) -> Identity:
        """A face of another person of the training split, by the encoder that the adapter reads."""
        name = self.adapter.config["encoder"]
        if self._bank is None:
            other = None if name == Manifest.open(self.shards).encoder else name
            self._bank = IdentityBank(self.shards, SPLIT, encoder=other)
        bank = self._bank
        own = bank.people.index(person)
        if len(bank.people) < 2:
            raise DataError(f"Triplets need two people or more; the training split of '{self.shards}' has one.")
        drawn = (own + 1 + int(random.integers(len(bank.people) - 1))) % len(bank.people)
        face = int(bank.starts[drawn]) + int(random.integers(max(int(bank.references[drawn]), 1)))
        return Identity(embeddings=torch.from_numpy(np.array(bank.embeddings[face]))[None], encoder=name)


def triplets_key(shards: str, latents: LatentMaker) -> str:
    """The key of the triplets of a set.

    Args:
        shards: Folder or URL of the set.
        latents: Makes the latents of the photos of the run.

    Raises:
        DataError: The set has no triplets, or they were encoded by another VAE or cut otherwise.
    """
    found = column_key(shards, next(iter(Manifest.open(shards).shards)), TRIPLETS)
    if not found.startswith(f"{latents.key()}/"):
        raise DataError(
            f"The triplets of '{shards}' were made for '{found}', and the run needs '{latents.key()}'. Write them "
            "again with the base and resolution of the run."
        )
    return found
