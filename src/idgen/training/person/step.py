"""The training step of one person, and the folder that it writes."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch

from ...files import write_folder, write_tensors
from ...identity import Identity
from ...losses import Weighted
from ..batch import Batch
from ..denoiser import IdentityDenoiser
from ..encoding import as_read
from ..randomness import Generators
from ..step import CONFIG

IDENTITY_FILE = "identity.safetensors"
"""The person, as `idgen generate --identity` reads it."""

WORDS_FILE = "learned_embeds.safetensors"
"""File that `pipeline.load_textual_inversion` looks for in a folder."""

_OF_ENCODERS = ("clip_l", "clip_g")
"""Keys of SDXL's two text encoders, as in diffusers' training scripts."""


class PersonStep(IdentityDenoiser):
    """The denoising step, with prior pictures: samples without an identity have a weight of their own.

    `L = L_person + prior_weight · L_prior + w(t) · L_triplet` (ID-Booth, arXiv 2504.07392, eq. 5), a mean over all
    samples of the batch.

    Args:
        args: See `IdentityDenoiser`.
        person: The person, who is written into the folder.
        token: Token that stands for the person after `load_textual_inversion`.
        prior_weight: Weight of samples without an identity.
        options: See `IdentityDenoiser`.
    """

    def __init__(self, *args: Any, person: Identity, token: str, prior_weight: float = 1.0, **options: Any) -> None:
        super().__init__(*args, **options)
        self.person, self.token, self.prior_weight = person, token, prior_weight

    def forward(self, batch: Batch, random: Generators) -> Weighted:
        """See `IdentityDenoiser`."""
        found = super().forward(batch, random)
        weights = torch.where(batch.has_identity, 1.0, self.prior_weight).to(found.values)
        return found._replace(values=found.values * weights)

    def save(self, folder: Path) -> None:
        """Write the adapter, the LoRA, the identity file, and the pseudo-words for stock diffusers."""
        with write_folder(folder, last=CONFIG) as new:
            super().save(new)
            self.person.save(new / IDENTITY_FILE)
            if words := self.words():
                write_tensors(new / WORDS_FILE, words, {"format": "pt"})

    @torch.no_grad()
    def words(self) -> dict[str, torch.Tensor]:
        """The person's pseudo-words, (num_words, text_dim): by the token, or by the text encoder if there are two.

        They are empty if the adapter has none.
        """
        assert self.adapter is not None
        config = self.adapter.config
        embedding = self.person.embedding(normalised=config["normalised"]).to(self.adapter.device)
        read = as_read(embedding[None], config["normalised"], pool_photos=True)
        names = [self.token] if len(self.base.text_encoders) == 1 else _OF_ENCODERS
        found = zip(names, self.adapter.words(read), strict=False)
        return {name: words[0].cpu().contiguous() for name, words in found if words is not None}


def token_of(folder: Path) -> str:
    """The token that stands for the person after `load_textual_inversion`, named after the folder."""
    name = re.sub(r"\W+", "-", folder.resolve().name).strip("-").lower()
    return f"<{name}>" if name not in ("", "id") else "<person>"  # `<id>` is that of idgen
