"""`ShardBatches`: prepared shards → what a training step reads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
import torch

from ..data.bank import IdentityBank
from ..data.dataset import Sample
from ..data.loader import PairedLoader
from ..data.makers import encode_images
from ..losses import Bank
from .batch import Batch


class ShardBatches:
    """Batches of one process; see `Batches`.

    Args:
        loader: Of the samples.
        vae: Encodes pictures; not needed where latents are cached.
        negatives: A bank of the same split, for the contrastive loss, or none.
        encode: `BaseModel.encode`; needed where text is cached, for prompts that are dropped or nobody's caption.
    """

    def __init__(
        self,
        loader: PairedLoader,
        vae: Any = None,
        negatives: IdentityBank | None = None,
        encode: Callable[[Sequence[str]], dict[str, torch.Tensor]] | None = None,
    ) -> None:
        self.loader, self.vae, self.negatives, self.encode = loader, vae, negatives, encode
        self._encoded = lru_cache(16)(self._encode)  # there are two such prompts, and captions that came later
        self._number = 0  # of the batch, over all epochs: draws of negatives follow from it

    def __iter__(self) -> Iterator[Batch]:
        """Go on from where the stream is."""
        for samples in self.loader:
            self._number += 1
            yield self._batch(samples)

    def state_dict(self) -> dict[str, Any]:
        """Where the stream is, on all processes."""
        return {"number": self._number, **self.loader.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go there."""
        self._number = state["number"]
        self.loader.load_state_dict({key: value for key, value in state.items() if key != "number"})

    def key(self) -> str:
        """Twelve hexadecimal digits that stand for the photos, whose they are and what is cached of them."""
        dataset = self.loader.dataset
        manifest, bank = dataset.manifest, dataset.bank
        facts = [manifest.encoder, manifest.shards, dataset.latents, dataset.text, bank.people, bank.counts.tolist()]
        digest = hashlib.sha256(json.dumps(facts).encode())
        digest.update(np.ascontiguousarray(bank.rows).tobytes())
        return digest.hexdigest()[:12]

    def bank(self, persons: torch.Tensor) -> Bank:
        """Other people than these, other ones at each step."""
        assert self.negatives is not None
        return Bank(*(part.to(persons.device) for part in self.negatives.draw(persons, self._number)))

    def _batch(self, samples: Sequence[Sample]) -> Batch:
        pictures = torch.stack([sample.picture for sample in samples])
        if self.loader.dataset.latents is None:
            pictures = encode_images(self.vae, pictures.numpy())
        return Batch(
            latents=pictures.float(),
            prompts=tuple(sample.prompt for sample in samples),
            id_embeds=torch.stack([sample.id_embeds for sample in samples]).squeeze(1),
            encoder=self.loader.dataset.manifest.encoder,
            target_embeds=torch.stack([sample.target_embeds for sample in samples]).float(),
            landmarks=torch.stack([sample.landmarks for sample in samples]),
            face_found=torch.ones(len(samples), dtype=torch.bool),  # every sample is a face of the index
            has_identity=torch.tensor([sample.has_identity for sample in samples]),
            is_reference=torch.tensor([sample.is_reference for sample in samples]),
            persons=torch.from_numpy(np.array([sample.person for sample in samples])),
            time_ids=torch.stack([sample.time_ids for sample in samples]),
            encoder_hidden_states=None if self.loader.dataset.text is None else self._text(samples),
        )

    def _text(self, samples: Sequence[Sample]) -> torch.Tensor:
        """Prompts as the UNet reads them, (batch, length, dim)."""
        return torch.stack(
            [self._encoded(sample.prompt) if sample.text is None else sample.text.float() for sample in samples]
        )

    def _encode(self, prompt: str) -> torch.Tensor:
        assert self.encode is not None
        return self.encode([prompt])["encoder_hidden_states"][0].float().cpu()
