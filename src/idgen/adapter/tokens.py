"""Identity tokens of a person, and their layout over the UNet's batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch
import torch.nn.functional as F

from ..errors import AdapterError
from .branch import Branch, KeysValues

BatchLayout: TypeAlias = tuple[bool, ...]
"""The parts of a UNet's batch in order, each `num_images` long: `True` for a conditional part, `False` for the
negative one. Classifier-free guidance has `(False, True)`."""


@dataclass(frozen=True, eq=False)
class IdentityTokens:
    """Identity tokens of one person in the image, and the negative ones for guidance.

    Attributes:
        tokens: (rows, tokens, dim); one row for all images, or one row per prompt.
        negative_tokens: (1, tokens, dim), the projection of a zero embedding.
        words: (rows, words, text_dim) for each text encoder: the pseudo-words that stand for the person in a prompt;
            `None` for an encoder without pseudo-words.
        id_embeds: (rows, dim) or (rows, photos, dim), the embeddings of the tokens; a blocklist checks them.
    """

    tokens: torch.Tensor
    negative_tokens: torch.Tensor
    words: tuple[torch.Tensor | None, ...] = ()
    id_embeds: torch.Tensor | None = None

    def by_person(self, people: int) -> list[IdentityTokens]:
        """The tokens of each person in an image, of rows for several people per image, next to each other."""
        if people == 1:
            return [self]
        words = [tuple(None if w is None else w[i::people] for w in self.words) for i in range(people)]
        embeds = [None if self.id_embeds is None else self.id_embeds[i::people] for i in range(people)]
        return [
            IdentityTokens(self.tokens[i::people], self.negative_tokens, words[i], embeds[i]) for i in range(people)
        ]

    def keys_values(self, branch: Branch, num_images: int, num_zero: int = 0) -> tuple[KeysValues, KeysValues]:
        """Negative and positive keys and values of one layer, (num_images, tokens + num_zero, inner_dim) each.

        Keys and values of zero tokens are zero, because branches with zero tokens have no bias.

        Raises:
            AdapterError: `num_images` is not a multiple of the number of rows.
        """
        rows = len(self.tokens)
        if num_images % rows:
            raise AdapterError(f"The number of images must be a multiple of {rows} identities, got {num_images}.")
        keys_values = branch(torch.cat([self.negative_tokens, self.tokens]))
        both = [F.pad(x, (0, 0, 0, num_zero)).split([1, rows]) for x in keys_values]
        negative = KeysValues(*(x[0].expand(num_images, -1, -1) for x in both))
        positive = KeysValues(*(x[1].repeat_interleave(num_images // rows, 0) for x in both))
        return negative, positive


def default_layout(batch: int, num_images: int) -> BatchLayout:
    """The layout of a batch of `num_images`, or of twice as many with the negative half first, as in diffusers.

    Raises:
        AdapterError: The batch has another size.
    """
    layouts: dict[int, BatchLayout] = {num_images: (True,), 2 * num_images: (False, True)}
    if batch not in layouts:
        raise AdapterError(
            f"The batch must be one of {sorted(layouts)} for {num_images} image(s), got a batch of {batch}."
        )
    return layouts[batch]
