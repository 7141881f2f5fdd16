"""`id_image` and `id_embeds` as users give them → photos and identities."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from ..errors import IdentityError
from ..faces import Photo
from ..identity import Identity


def photos(id_image: Any) -> list[Photo | Identity]:
    """One photo or several, as a list.

    Raises:
        IdentityError: The list is empty.
    """
    several = isinstance(id_image, Sequence) and not isinstance(id_image, str | bytes)
    found: list[Any] = list(id_image) if several else [id_image]
    if not found:
        raise IdentityError("id_image is an empty list: give a photo, or leave it out to draw no person.")
    return found


def identities(id_embeds: Any, encoder: str, dim: int, normalised: bool) -> list[Identity]:
    """Identities or embeddings, one or several, as a list of identities.

    Args:
        id_embeds: An `Identity`, numbers of the shape (dim,), or (people, dim); (photos, 1, dim) or more axes, as
            diffusers' recipes for IP-Adapter-FaceID stack the photos of one person, with a first half of zeros for
            guidance or without; or a list of such. Tensors, arrays and lists of any number type.
        encoder: Name of the encoder that made numbers.
        dim: Length of its embeddings.
        normalised: Whether the adapter reads embeddings of unit length.

    Raises:
        IdentityError: The list is empty, or something in it is neither an identity nor an embedding of this length.
    """
    if isinstance(id_embeds, Identity):
        return [id_embeds]
    if isinstance(id_embeds, Sequence) and not isinstance(id_embeds, str | bytes) and not _is_numbers(id_embeds):
        found = [one for each in id_embeds for one in identities(each, encoder, dim, normalised)]
        if not found:
            raise IdentityError("id_embeds is empty: give an identity, or leave it out to draw no person.")
        return found
    numbers = _numbers(id_embeds)
    if numbers is None or not numbers.ndim or numbers.shape[-1] != dim:
        what = type(id_embeds).__name__ if numbers is None else f"numbers of the shape {tuple(numbers.shape)}"
        raise IdentityError(
            f"id_embeds takes an Identity or embeddings of length {dim}, not {what}. Photos go into id_image."
        )
    people = [numbers[None]] if numbers.ndim == 1 else list(numbers[:, None])
    if numbers.ndim > 2:
        people = [_without_negatives(numbers).reshape(-1, dim)]
    return [Identity(embeddings=each, encoder=encoder, normalised=normalised) for each in people]


def _without_negatives(numbers: torch.Tensor) -> torch.Tensor:
    """Drop the zeros that diffusers' recipes put before the embeddings, for the negative half of guidance."""
    half = len(numbers) // 2
    return numbers[half:] if half and len(numbers) % 2 == 0 and not numbers[:half].any() else numbers


def _is_numbers(values: Sequence[Any]) -> bool:
    return bool(values) and all(isinstance(value, int | float | np.number) for value in values)


def _numbers(values: Any) -> torch.Tensor | None:
    if isinstance(values, torch.Tensor):
        return values.detach().float().cpu()
    try:
        array = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError):
        return None
    return torch.from_numpy(array.copy()) if array.dtype == np.float32 else None
