"""How like a generated face is to other people."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F

from ..errors import LossError
from .parametrisation import at_least_float32


class Bank(NamedTuple):
    """Embeddings of people, and who they are.

    Attributes:
        embeds: (n, dim), shared by all samples, or (batch, n, dim).
        persons: (n,) or (batch, n), one number for each person. Whoever is not known needs a number of their own.
    """

    embeds: torch.Tensor
    persons: torch.Tensor


Negatives: TypeAlias = Bank | Callable[[torch.Tensor], Bank]
"""A bank, or a function that draws one for the persons of a batch, (batch,). The targets of the batch are negatives
for each other when they are in the bank: `Bank(target_embeds, persons)`; several processes gather them first."""


def negative_cosines(
    generated_embeds: torch.Tensor, persons: torch.Tensor, negatives: Negatives
) -> tuple[torch.Tensor, torch.Tensor]:
    """Compare each generated face with everybody who is somebody else.

    Args:
        generated_embeds: (batch, dim).
        persons: (batch,), who each sample shows.
        negatives: With whom to compare.

    Returns:
        Cosines, (batch, n), and which of them count, (batch, n): those of the sample's own person do not.

    Raises:
        LossError: The shapes do not fit together.
    """
    bank = negatives(persons) if callable(negatives) else negatives
    batch, dim = generated_embeds.shape
    n = bank.embeds.shape[-2]
    if bank.embeds.shape not in ((n, dim), (batch, n, dim)) or bank.persons.shape != bank.embeds.shape[:-1]:
        raise LossError(
            f"Negatives must have the shapes (n, {dim}) or ({batch}, n, {dim}), and persons one number for each; not "
            f"{tuple(bank.embeds.shape)} and {tuple(bank.persons.shape)}."
        )
    generated, others = (F.normalize(at_least_float32(x), dim=-1) for x in (generated_embeds, bank.embeds))
    cosines = (others @ generated[..., None]).squeeze(-1) if others.ndim == 3 else generated @ others.T
    return cosines, persons[:, None] != bank.persons


def within_whiskers(cosines: torch.Tensor, counts: torch.Tensor, reach: float = 1.5) -> torch.Tensor:
    """Which negatives lie between the whiskers of a box plot: `q1 − w·IQR ≤ s ≤ q3 + w·IQR`.

    UNPG (arXiv 2203.11593) so drops noisy negatives: a person under two names is far too like, a broken crop far too
    unlike. It takes the quartiles over the whole batch; here they are those of each sample's own negatives, so that a
    sample's loss does not depend on which others share its batch.

    Args:
        cosines: (batch, n).
        counts: (batch, n), which of them count so far.
        reach: w, in interquartile ranges.

    Returns:
        (batch, n), a part of `counts`.
    """
    values = cosines.detach().masked_fill(~counts, torch.nan)
    if 0 in values.shape:
        return counts
    low, high = torch.nanquantile(values, values.new_tensor([0.25, 0.75]), dim=1, keepdim=True)
    whisker = reach * (high - low)
    return counts & (values >= low - whisker) & (values <= high + whisker)


def mean_over(values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Mean of the values that count along the last axis; 0 where none does."""
    return torch.where(counts, values, 0).sum(-1) / counts.sum(-1).clamp(min=1)
