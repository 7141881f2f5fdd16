"""Identity tokens from the embeddings of a batch."""

from __future__ import annotations

import torch
import torch.nn.functional as F

from ..adapter import IdentityAdapter, IdentityTokens
from ..errors import EncoderMismatchError, TrainingError
from .batch import Batch


@torch.no_grad()
def encode_beside(adapter: IdentityAdapter, batch: Batch) -> IdentityTokens:
    """Encode a batch with a frozen second adapter that is active beside the trained one.

    Raises:
        TrainingError: The batch has no embeddings for it.
    """
    if batch.beside is None:
        raise TrainingError("An adapter beside the one that is trained reads the batch's `beside`, which is missing.")
    return adapter.encode(as_read(batch.beside, adapter.config["normalised"], adapter.config["pool_photos"]))


def encode_with(adapter: IdentityAdapter, batch: Batch) -> IdentityTokens:
    """Encode the reference embeddings of a batch.

    Raises:
        EncoderMismatchError: The embeddings are of another face encoder than the adapter reads.
    """
    config = adapter.config
    if batch.encoder != config["encoder"]:
        raise EncoderMismatchError(
            f"The adapter reads embeddings of '{config['encoder']}', the batch holds those of '{batch.encoder}'."
        )
    return adapter.encode(as_read(batch.id_embeds, config["normalised"], config["pool_photos"]))


def as_read(embeds: torch.Tensor, normalised: bool, pool_photos: bool) -> torch.Tensor:
    """Convert raw embeddings to the adapter's input, as a pipeline converts an `Identity`.

    Args:
        embeds: (batch, dim) or (batch, photos, dim); zeros stay zeros.
        normalised: Whether the adapter reads embeddings of unit length.
        pool_photos: Whether it reads the mean of several photos.
    """
    if normalised:
        embeds = F.normalize(embeds, dim=-1)
    if embeds.ndim == 2 or not pool_photos:
        return embeds
    mean = embeds.mean(1)
    return F.normalize(mean, dim=-1) if normalised else mean
