"""Who is drawn in a call: identity tokens, laid out over the batches that a UNet is called with."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from ..errors import AdapterError
from .attention import IdentityBranch, KeysValues
from .fusion import Fusion


@dataclass(frozen=True, eq=False)
class Person:
    """Identity tokens of one person in the picture, and those of nobody for the negative half of guidance.

    Attributes:
        tokens: (rows, tokens, dim); one row serves all pictures, or there is one row a prompt.
        negative: (1, tokens, dim), the projection of a zero embedding.
        words: (rows, words, text_dim) for each text encoder, pseudo-words that name the person in a prompt; `None` for
            an encoder that has none.
    """

    tokens: torch.Tensor
    negative: torch.Tensor
    words: tuple[torch.Tensor | None, ...] = ()


def batch_layouts(pictures: int, perturbed: bool = False) -> Iterator[tuple[int, int]]:
    """How the UNet is called for this many pictures: (times the negative half, times the positive half) in the batch.

    Without guidance the batch is the pictures; with it the negative half goes first; guidance may be cut off in the
    middle of a run. Perturbed-attention guidance has the positive half twice.
    """
    positive = 2 if perturbed else 1
    yield 0, positive
    yield 1, positive


def keys_values(
    branch: IdentityBranch,
    persons: Sequence[Person],
    heads: int,
    pictures: int,
    perturbed: bool = False,
    fusion: Fusion | None = None,
) -> dict[int, list[KeysValues]]:
    """Keys and values of all persons for one layer, for every batch size that can come.

    Raises:
        AdapterError: A person has neither one row nor a divisor of `pictures` rows.
    """
    by_person = []
    for person in persons:
        rows = len(person.tokens)
        if pictures % rows:
            raise AdapterError(f"{rows} identities cannot be laid out over {pictures} pictures.")
        both = branch(torch.cat([person.negative, person.tokens]))
        split = [x.unflatten(-1, (heads, -1)).transpose(1, 2).split([1, rows]) for x in both]
        negative = [x[0].expand(pictures, -1, -1, -1) for x in split]
        positive = [x[1].repeat_interleave(pictures // rows, 0) for x in split]
        if fusion is not None:
            positive[1] = positive[1] * fusion.identity.to(positive[1])[:, None, None, None]
        by_person.append((negative, positive))
    return {
        pictures * (n + p): [
            KeysValues(*(torch.cat([*[minus] * n, *[plus] * p]) for minus, plus in zip(*person, strict=True)))
            for person in by_person
        ]
        for n, p in batch_layouts(pictures, perturbed)
    }
