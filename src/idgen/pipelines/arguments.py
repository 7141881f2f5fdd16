"""The identity arguments of a pipeline call."""

from __future__ import annotations

import dataclasses
import difflib
import inspect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, TypeAlias

import numpy as np
import torch

from ..adapter import Scale
from ..errors import AdapterError, IdentityError
from ..faces import Photo
from ..identity import Identity

Embedding: TypeAlias = Identity | torch.Tensor | np.ndarray | Sequence[float]
Person: TypeAlias = "Photo | Identity | Sequence[Photo]"
IdImage: TypeAlias = "Person | Sequence[Person]"
IdEmbeds: TypeAlias = Embedding | Sequence[Embedding]
IdMasks: TypeAlias = "Photo | Sequence[Photo]"


@dataclass(frozen=True, kw_only=True)
class IdentityArguments:
    """Identity arguments of a pipeline call, available after `load_id_adapter`.

    `<id>` in a prompt stands for the person, if the adapter has pseudo-words; for adapters that change the prompt
    (PhotoMaker), it is behind the class word: `"a photo of a man <id>"`.

    Args:
        id_image: A photo of the person, or a list of photos: one per prompt, or, with `id_masks`, one per person in
            the image. A list of several photos of one person can take the place of a photo; adapters that change the
            prompt (PhotoMaker) also read a list for a single prompt so.
        id_embeds: Instead of `id_image`: an `Identity`, or an embedding of the adapter's face encoder (tensor, array
            or list of numbers), or a list of these as for `id_image`. A dict gives them by adapter name.
        id_masks: Where each person may appear (white), one mask per person. An adapter that was trained to place
            several people (`max_people` in its configuration) draws several people under one prompt without masks.
        id_scale: Strength of identity conditioning in this call; a dict by adapter name if several are loaded.
            It does not act on pseudo-words: `<id>` in the prompt means the person at 0 too.
        control_interval: Compute the residuals of an `IdentityNet` in one of every `control_interval` steps and
            reuse them in the others.
        expression_image: A photo whose expression is drawn, of anybody: for a loaded adapter that reads expressions.
            A list of photos as for `id_image`, or what `encode_identity` makes of a photo with that adapter.
        expression_scale: Strength of the expression; the scale of its adapter if not given. A value per block and a
            `ScaleSchedule` are possible too.

    Raises:
        AdapterError: No adapter is loaded, or the numbers of people, masks and prompts do not fit together.
        EncoderMismatchError: An identity was made by another face encoder than the adapter or the blocklist reads.
        BlockedIdentityError: A person is on the blocklist.
        NoFaceError, ManyFacesError, ImageError: See `idgen.enroll`.
    """

    id_image: IdImage | Mapping[str, IdImage] | None = None
    id_embeds: IdEmbeds | Mapping[str, IdEmbeds] | None = None
    id_masks: IdMasks | None = None
    id_scale: Scale | Mapping[str, Scale] | None = None
    control_interval: int = 1
    expression_image: IdImage | None = None
    expression_scale: Scale | None = None

    @classmethod
    def pop_from(cls, keywords: dict[str, Any], stock: inspect.Signature) -> Self:
        """Remove the identity arguments from a call's keywords and return them.

        Raises:
            AdapterError: A keyword looks like an identity argument but is not one.
        """
        names = [field.name for field in dataclasses.fields(cls)]
        for name in keywords.keys() - {*names, *stock.parameters}:
            if name.startswith(("id_", "control_int", "expression")):
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean '{near[0]}'?" if near else f"identity arguments are {', '.join(names)}."
                raise AdapterError(f"Unknown identity argument '{name}'; {hint}")
        return cls(**{name: keywords.pop(name) for name in names if name in keywords and name not in stock.parameters})

    @property
    def people(self) -> IdImage | IdEmbeds | Mapping[str, IdImage | IdEmbeds] | None:
        """`id_image` or `id_embeds`, or `None` if neither was given.

        Raises:
            AdapterError: Both were given, or neither together with another identity argument.
        """
        if self.id_image is not None and self.id_embeds is not None:
            raise AdapterError("Pass either id_image or id_embeds, not both.")
        people = self.id_image if self.id_embeds is None else self.id_embeds
        masks = self.id_masks is not None and self.expression_image is None
        if people is None and (masks or self.id_scale is not None or self.control_interval != 1):
            raise AdapterError("id_masks, id_scale and control_interval require id_image or id_embeds.")
        if self.expression_scale is not None and self.expression_image is None:
            raise AdapterError("expression_scale requires expression_image.")
        return people


def with_identity_arguments(stock: inspect.Signature) -> inspect.Signature:
    """The signature of a pipeline's call with the identity arguments as keywords."""
    ours = inspect.signature(IdentityArguments).parameters.values()
    stock_parameters = list(stock.parameters.values())
    rest = [each for each in stock_parameters if each.kind is inspect.Parameter.VAR_KEYWORD]
    named = [each for each in stock_parameters if each.kind is not inspect.Parameter.VAR_KEYWORD]
    return stock.replace(parameters=[*named, *(each for each in ours if each.name not in stock.parameters), *rest])


def as_photos(id_image: IdImage) -> list[Person]:
    """One person or several, as a list.

    Raises:
        IdentityError: The list is empty.
    """
    several = isinstance(id_image, Sequence) and not isinstance(id_image, str | bytes)
    photos: Any = list(id_image) if several else [id_image]  # pyright: ignore[reportArgumentType]
    if not photos:
        raise IdentityError("id_image is an empty list; pass None for an image without identity.")
    return photos


def as_identities(id_embeds: IdEmbeds, encoder: str, dim: int, normalised: bool) -> list[Identity]:
    """Identities or embeddings, one or several, as a list of identities.

    Args:
        id_embeds: An `Identity`; numbers of shape (dim,), or (people, dim); (photos, 1, dim) or more axes, in which
            diffusers' recipes for IP-Adapter-FaceID stack the photos of one person, optionally with a first half of
            zeros for guidance; or a list of these. Tensors, arrays and lists of any number type.
        encoder: Name of the face encoder that made the numbers.
        dim: Length of its embeddings.
        normalised: Whether the adapter reads embeddings of unit length.

    Raises:
        IdentityError: The list is empty, or an item is neither an identity nor an embedding of this length.
    """
    if isinstance(id_embeds, Identity):
        return [id_embeds]
    if isinstance(id_embeds, Sequence) and not isinstance(id_embeds, str | bytes) and not _is_numbers(id_embeds):
        found = [one for each in id_embeds for one in as_identities(each, encoder, dim, normalised)]  # pyright: ignore
        if not found:
            raise IdentityError("id_embeds is empty; pass None for an image without identity.")
        return found
    numbers = _numbers(id_embeds)
    if numbers is None or not numbers.ndim or numbers.shape[-1] != dim:
        got = type(id_embeds).__name__ if numbers is None else f"shape {tuple(numbers.shape)}"
        raise IdentityError(
            f"id_embeds must be an Identity or embeddings of length {dim}, got {got}. Pass photos as id_image."
        )
    people = [numbers[None]] if numbers.ndim == 1 else list(numbers[:, None])
    if numbers.ndim > 2:
        people = [_without_negatives(numbers).reshape(-1, dim)]
    return [Identity(embeddings=each, encoder=encoder, normalised=normalised) for each in people]


def _without_negatives(numbers: torch.Tensor) -> torch.Tensor:
    """Drop the zeros that diffusers' recipes put before the embeddings, for the negative half of guidance."""
    half = len(numbers) // 2
    return numbers[half:] if half and len(numbers) % 2 == 0 and not numbers[:half].any() else numbers


def _is_numbers(values: Sequence[object]) -> bool:
    return bool(values) and all(isinstance(value, int | float | np.number) for value in values)


def _numbers(values: object) -> torch.Tensor | None:
    if isinstance(values, torch.Tensor):
        return values.detach().float().cpu()
    try:
        array = np.asarray(values, dtype=np.float32)
    except (TypeError, ValueError):
        return None
    return torch.from_numpy(array.copy()) if array.dtype == np.float32 else None
