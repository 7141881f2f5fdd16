"""Who is drawn in a call: identity tokens, and how they are laid out over the UNet's batch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeAlias

import torch

from ..errors import AdapterError
from .attention import IdentityBranch, KeysValues

Rows: TypeAlias = "tuple[bool, ...]"
"""The parts of a UNet's batch in order, each as long as the number of pictures: `True` for a conditional part, `False`
for the negative one. Classifier-free guidance has `(False, True)`."""


@dataclass(frozen=True, eq=False)
class Person:
    """Identity tokens of one person in the picture, and the negative ones for guidance.

    Attributes:
        tokens: (rows, tokens, dim); one row serves all pictures, or there is one row per prompt.
        negative: (1, tokens, dim), the projection of a zero embedding.
        words: (rows, words, text_dim) for each text encoder, pseudo-words that name the person in a prompt; `None` for
            an encoder that has none.
        id_embeds: (rows, dim) or (rows, photos, dim), what the tokens were made from; a blocklist checks it.
    """

    tokens: torch.Tensor
    negative: torch.Tensor
    words: tuple[torch.Tensor | None, ...] = ()
    id_embeds: torch.Tensor | None = None

    def keys_values(self, branch: IdentityBranch, pictures: int) -> tuple[KeysValues, KeysValues]:
        """Negative and positive keys and values of one layer, (pictures, tokens, inner_dim) each.

        Raises:
            AdapterError: The number of rows does not divide `pictures`.
        """
        rows = len(self.tokens)
        if pictures % rows:
            raise AdapterError(f"{rows} identities cannot be laid out over {pictures} pictures.")
        both = [x.split([1, rows]) for x in branch(torch.cat([self.negative, self.tokens]))]
        negative = KeysValues(*(x[0].expand(pictures, -1, -1) for x in both))
        positive = KeysValues(*(x[1].repeat_interleave(pictures // rows, 0) for x in both))
        return negative, positive


def rows_of_batch(batch: int, pictures: int) -> Rows:
    """The layout of a batch of `pictures`, or of twice as many with the negative half first, as in diffusers.

    Raises:
        AdapterError: The batch has another size.
    """
    layouts: dict[int, Rows] = {pictures: (True,), 2 * pictures: (False, True)}
    if batch not in layouts:
        raise AdapterError(
            f"The network was called with a batch of {batch}; the identities are for {sorted(layouts)}."
        )
    return layouts[batch]
