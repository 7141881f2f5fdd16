"""`Sample`: one target picture with reference embeddings of its person."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch


class Sample(NamedTuple):
    """One target picture and its person.

    Attributes:
        picture: Latents, (channels, height, width) float16, if they are cached, or (height, width, 3) uint8.
        prompt: Empty if it is dropped.
        id_embeds: (references, dim), float32, raw; zeros if the identity is dropped. Expressions are those of the
            target, (1, dim).
        target_embeds: (dim,), of the target's own face; of the first reference where the target is no reference.
        compared: Name of an encoder → (photos, dim), float32, raw: the embeddings that generated faces are compared
            with, `target_embeds` first, followed by those of the references if they are asked for.
        landmarks: (5, 2), in pixels of the picture.
        time_ids: Size conditioning of SDXL, six numbers.
        person: Number in the bank.
        face: Number of the target in the bank.
        references: (references,), numbers of the reference faces.
        has_identity: False if the identity is dropped.
        is_reference: Whether the target may be a reference, so that its own face shows how the person looks.
        reliability: How reliably target and references show the same person, 0 to 1: the product of the target's
            `reliability` in the index and the references' mean. 1 if the target is its own reference, and for photos
            without a value.
        text: (length, dim) float16, the encoded prompt, if it is cached.
        swapped: Latents of the picture with another person's face, if triplets are read.
        beside: (references, dim), as `id_embeds`, by the set's encoder, for an adapter beside the one that is
            trained; zeros where both prompt and identity are dropped.
    """

    picture: torch.Tensor
    prompt: str
    id_embeds: torch.Tensor
    target_embeds: torch.Tensor
    compared: dict[str, torch.Tensor]
    landmarks: torch.Tensor
    time_ids: torch.Tensor
    person: int
    face: int
    references: np.ndarray
    has_identity: bool
    is_reference: bool
    reliability: float = 1.0
    text: torch.Tensor | None = None
    swapped: torch.Tensor | None = None
    beside: torch.Tensor | None = None
