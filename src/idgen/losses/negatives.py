"""Similarities of generated faces to other people."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
import torch.nn.functional as F

from ..errors import LossError
from .parametrisation import at_least_float32
from .precision import full_precision


class Bank(NamedTuple):
    """Embeddings of other people.

    Attributes:
        embeds: (n, dim), shared by all samples, or (batch, n, dim).
        persons: (n,) or (batch, n), a number for each person. A person who is not in the data needs a unique number.
    """

    embeds: torch.Tensor
    persons: torch.Tensor


Negatives: TypeAlias = Bank | Callable[[torch.Tensor], Bank]
"""A bank, or a function that draws one for the persons of a batch, (batch,). To use the targets of the batch
as negatives for each other, put them into the bank: `Bank(target_embeds, persons)`, gathered from all processes."""


def negative_cosines(
    generated_embeds: torch.Tensor, persons: torch.Tensor, negatives: Negatives
) -> tuple[torch.Tensor, torch.Tensor]:
    """Cosines of each generated face with other people.

    Args:
        generated_embeds: (batch, dim).
        persons: (batch,), the person of each sample.
        negatives: Embeddings to compare with.

    Returns:
        Cosines, (batch, n), and a mask, (batch, n), that is False for the sample's own person.

    Raises:
        LossError: The shapes do not match.
    """
    bank = negatives(persons) if callable(negatives) else negatives
    batch, dim = generated_embeds.shape
    n = bank.embeds.shape[-2]
    if bank.embeds.shape not in ((n, dim), (batch, n, dim)) or bank.persons.shape != bank.embeds.shape[:-1]:
        raise LossError(
            f"Negatives must have the shapes (n, {dim}) or ({batch}, n, {dim}), and persons one number for each; not "
            f"{tuple(bank.embeds.shape)} and {tuple(bank.persons.shape)}."
        )
    with full_precision(generated_embeds):
        generated, others = (F.normalize(at_least_float32(x), dim=-1) for x in (generated_embeds, bank.embeds))
        cosines = (others @ generated[..., None]).squeeze(-1) if others.ndim == 3 else generated @ others.T
    return cosines, persons[:, None] != bank.persons


def within_whiskers(cosines: torch.Tensor, counts: torch.Tensor, reach: float = 1.5) -> torch.Tensor:
    """Mask of the negatives between the whiskers of a box plot: `q1 − w·IQR ≤ s ≤ q3 + w·IQR`.

    UNPG (arXiv 2203.11593) ignores noisy negatives with it: a person under two names is too similar, a broken crop too
    dissimilar. UNPG takes the quartiles over the whole batch; here they are taken over each sample's own negatives, so
    that a sample's loss does not depend on the other samples of the batch.

    Args:
        cosines: (batch, n).
        counts: (batch, n), mask of the negatives to consider.
        reach: w, in interquartile ranges.

    Returns:
        (batch, n), a subset of `counts`.
    """
    values = cosines.detach().masked_fill(~counts, torch.nan)
    if 0 in values.shape:
        return counts
    low, high = torch.nanquantile(values, values.new_tensor([0.25, 0.75]), dim=1, keepdim=True)
    whisker = reach * (high - low)
    return counts & (values >= low - whisker) & (values <= high + whisker)


def mean_over(values: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """Masked mean along the last axis; 0 where the mask is empty."""
    return torch.where(counts, values, 0).sum(-1) / counts.sum(-1).clamp(min=1)
