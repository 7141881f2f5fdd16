"""Prepared shards -> batches for a training step."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import Any, Literal

import numpy as np
import torch
import torch.nn.functional as F
from diffusers import AutoencoderKL, AutoencoderTiny

from ..data.bank import IdentityBank
from ..data.face_rows import RELIABILITY
from ..data.group_dataset import NOBODY, GroupDataset, GroupSample
from ..data.index import read_index
from ..data.loader import PairedLoader
from ..data.sample import Sample
from ..data.storage import join
from ..errors import DataError
from ..losses import Bank
from ..vae import encode_images
from .batch import Batch


class ShardBatches:
    """The batches of one process; see `Batches`.

    Args:
        loader: Loader of the samples.
        vae: Encodes pictures; not needed if latents are cached.
        negatives: Bank of the same split, for contrastive losses: by the main encoder of the losses.
        encode: `BaseModel.encode`; needed if prompt embeddings are cached, for dropped prompts and changed captions.
    """

    def __init__(
        self,
        loader: PairedLoader,
        vae: AutoencoderKL | AutoencoderTiny | None = None,
        negatives: IdentityBank | None = None,
        encode: Callable[[Sequence[str]], dict[str, torch.Tensor]] | None = None,
    ) -> None:
        self.loader, self.vae, self.encode = loader, vae, encode
        self.negatives = {} if negatives is None else {self.compare[0]: negatives}
        self._encoded = lru_cache(16)(self._encode)  # dropped prompts, and captions that changed after caching

    def __iter__(self) -> Iterator[Batch]:
        """Continue from the current position."""
        for samples in self.loader:
            yield self._batch(samples)

    def state_dict(self) -> dict[str, Any]:
        """The position in the data, the same on all processes."""
        return self.loader.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Set the position."""
        self.loader.load_state_dict(state)

    @property
    def encoder(self) -> str:
        """Name of the face encoder that the adapter reads."""
        return self.loader.dataset.encoder

    @property
    def compare(self) -> tuple[str, ...]:
        """Names of the face encoders of the losses or rewards, the main one first."""
        return self.loader.dataset.compare

    def embedding_dim(self, encoder: str) -> int:
        """Length of an embedding."""
        return self.loader.dataset.banks[encoder].embeddings.shape[1]

    def centres(self, encoder: str) -> torch.Tensor:
        """Mean embedding of each person, (people, dim)."""
        return torch.from_numpy(self.loader.dataset.banks[encoder].centres)

    def groups(self) -> torch.Tensor:
        """Number of each person's group, (people,); −1 where it is not known."""
        told = self.loader.dataset.bank.groups
        number = {name: i for i, name in enumerate(sorted({name for name in told if name is not None}))}
        return torch.tensor([-1 if name is None else number[name] for name in told])

    def group_means(self) -> torch.Tensor:
        """Mean embeddings, (1 + groups, dim): of all people, and of each group."""
        centres, groups = self.centres(self.encoder), self.groups()
        means = torch.stack([centres.mean(0), *(centres[groups == i].mean(0) for i in range(int(groups.max()) + 1))])
        some = torch.from_numpy(np.array(self.loader.dataset.bank.embeddings[:1024]))  # centres have unit length
        return F.normalize(means, dim=-1) * some.norm(dim=-1).mean()

    def check_reliability(self) -> None:
        """Check that the shards say how reliable the names of photos are.

        Raises:
            DataError: They do not.
        """
        dataset = self.loader.dataset
        urls = [join(dataset.shards, f"{name}.parquet") for name in dataset.names]
        tables = [read_index(url, (), (RELIABILITY,)) for url in urls]
        if all(RELIABILITY not in table.column_names or not table[RELIABILITY].drop_null() for table in tables):
            raise DataError(
                f"The shards in '{dataset.shards}' do not say how reliable the names of their photos are. Run `idgen "
                "prepare` again; it measures this on sets of 45 people or more, some with several photos."
            )

    def open_negatives(self, count: int, seed: int) -> None:
        """Open the banks that `bank` draws from.

        Args:
            count: Other people per sample.
            seed: Seed of the draws.
        """
        dataset = self.loader.dataset
        for name in self.compare:
            other = None if name == dataset.manifest.encoder else name
            self.negatives[name] = IdentityBank(dataset.shards, count=count, seed=seed, encoder=other)

    def key(self) -> str:
        """Twelve hexadecimal digits that identify the photos, their people and the cached columns."""
        dataset = self.loader.dataset
        manifest, bank = dataset.manifest, dataset.bank
        encoders = [dataset.encoder, *dataset.compare]
        parts = [encoders, manifest.shards, dataset.latents, dataset.text, bank.people, bank.counts.tolist()]
        parts += [bank.groups] if any(bank.groups) else []
        parts += [dataset.triplets] if dataset.triplets is not None else []
        digest = hashlib.sha256(json.dumps(parts).encode())
        digest.update(np.ascontiguousarray(bank.rows).tobytes())
        return digest.hexdigest()[:12]

    def bank(self, persons: torch.Tensor, encoder: str | None = None) -> Bank:
        """Draw people other than these, different ones at each step, by the main encoder of the losses or another."""
        drawn = self.negatives[encoder or self.compare[0]].draw(persons, self.loader.number)
        return Bank(*(part.to(persons.device) for part in drawn))

    def _batch(self, samples: Sequence[Sample | GroupSample]) -> Batch:
        dataset, pictures = self.loader.dataset, torch.stack([sample.picture for sample in samples])
        people = dataset.slots if isinstance(dataset, GroupDataset) else 1
        faces = [face for each in samples for face in (each.rows(people) if isinstance(each, GroupSample) else [each])]
        if self.loader.dataset.latents is None:
            pictures = encode_images(self.vae, pictures.numpy())
        main, *others = [(name, torch.stack([face.compared[name] for face in faces])) for name in self.compare]
        return Batch(
            latents=pictures.float(),
            prompts=tuple(sample.prompt for sample in samples),
            people=people,
            id_embeds=torch.stack([face.id_embeds for face in faces]).squeeze(1),
            encoder=self.encoder,
            target_embeds=torch.stack([face.target_embeds for face in faces]).float(),
            reference_embeds=main[1],
            by_encoder=dict(others),
            landmarks=torch.stack([face.landmarks for face in faces]),
            face_found=torch.tensor([face.person != NOBODY for face in faces]),  # every sample is a detected face
            has_identity=torch.tensor([face.has_identity for face in faces]),
            is_reference=torch.tensor([face.is_reference for face in faces]),
            reliability=torch.tensor([face.reliability for face in faces]),
            persons=torch.from_numpy(np.array([face.person for face in faces])),
            time_ids=torch.stack([sample.time_ids for sample in samples]),
            encoder_hidden_states=None if self.loader.dataset.text is None else self._text(samples),
            swapped=_stacked(samples, "swapped"),
            beside=_stacked(samples, "beside"),
        )

    def _text(self, samples: Sequence[Sample | GroupSample]) -> torch.Tensor:
        """Prompt embeddings, (batch, length, dim)."""
        return torch.stack(
            [self._encoded(sample.prompt) if sample.text is None else sample.text.float() for sample in samples]
        )

    def _encode(self, prompt: str) -> torch.Tensor:
        assert self.encode is not None
        return self.encode([prompt])["encoder_hidden_states"][0].float().cpu()


def _stacked(samples: Sequence[Sample | GroupSample], part: Literal["swapped", "beside"]) -> torch.Tensor | None:
    """A part that samples of one face may have, (batch, …)."""
    found = [getattr(each, part) for each in samples if isinstance(each, Sample)]
    return torch.stack(found).float() if found and found[0] is not None else None
