"""Losses that read a label of people: the column `group` of the shards, such as an age group.

After "Generalized Face Anti-spoofing via Finer Domain Partition and Disentangling Liveness-irrelevant Factors" (arXiv
2407.08243): its asymmetric contrast treats two classes differently, and it makes the features of the wanted attribute
orthogonal to those of another one. There, identity disturbs liveness. Here, the group disturbs identity, and both
formulas are our reading.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F

from ..errors import LossError
from .contrastive import info_nce
from .identity_losses import cosine
from .negatives import Negatives, negative_cosines
from .parametrisation import at_least_float32
from .settings import DEFAULTS

Groups = Callable[[], torch.Tensor]
"""Returns the number of each person's group, (people,), in the order of the numbers in `persons`; −1 where unknown."""


class WithinGroupLoss:
    """InfoNCE whose negatives are people of the same group: `−log( e^(s⁺/τ) / (e^(s⁺/τ) + Σ_{same group} e^(s⁻/τ)) )`.

    The similarity to the person increases, and the similarity to people of the same group decreases. A model that
    generates the group without the person does not reduce the loss. A person of an unknown group is compared with
    everybody.

    Args:
        temperature: τ; the default fits the default face encoder, see `LossSettings`.
        groups: Group of each person.

    Raises:
        LossError: τ is not positive, or no group is known.
    """

    def __init__(self, temperature: float = DEFAULTS.temperature, groups: Groups | None = None) -> None:
        if temperature <= 0:
            raise LossError(f"temperature must be > 0, not {temperature}.")
        self.temperature, self.groups = temperature, person_groups(groups)

    def __call__(
        self,
        generated_embeds: torch.Tensor,
        target_embeds: torch.Tensor,
        persons: torch.Tensor,
        negatives: Negatives,
    ) -> torch.Tensor:
        """Arguments as of `ContrastiveLoss`, with numbers of people of the training set; returns (batch,)."""
        bank = negatives(persons) if callable(negatives) else negatives
        self.groups = self.groups.to(persons.device)
        cosines, counts = negative_cosines(generated_embeds, persons, bank)
        own, others = self.groups[persons][:, None], self.groups[bank.persons]
        counts = counts & ((own == others) | (own < 0))
        positive = cosine(generated_embeds, target_embeds)[:, None]
        return info_nce(positive / self.temperature, cosines.masked_fill(~counts, -torch.inf) / self.temperature)


class OrthogonalityLoss:
    """`mean cos²(T(e) − T(μ), T(μ_g) − T(μ))` over the tokens: they do not lie in the direction of the group.

    T makes tokens of an embedding e; μ is the mean embedding of all people, and μ_g that of the person's group. The
    direction is a constant. It is 0 for a person of an unknown group.

    Args:
        groups: Group of each person.

    Raises:
        LossError: No group is known.
    """

    def __init__(self, groups: Groups | None = None) -> None:
        self.groups = person_groups(groups)

    def __call__(
        self, token_offsets: torch.Tensor, group_offsets: torch.Tensor, persons: torch.Tensor
    ) -> torch.Tensor:
        """(batch, tokens, dim), `T(e) − T(μ)`, (groups, tokens, dim), `T(μ_g) − T(μ)`, and (batch,) → (batch,)."""
        self.groups = self.groups.to(persons.device)
        groups = self.groups[persons]
        offsets = at_least_float32(token_offsets)
        directions = at_least_float32(group_offsets).detach()[groups.clamp(min=0)]
        cosines = F.cosine_similarity(offsets.unflatten(1, (-1, directions.shape[1])), directions[:, None], dim=-1)
        return cosines.square().flatten(1).mean(1) * (groups >= 0)


def person_groups(groups: Groups | None) -> torch.Tensor:
    """The groups, (people,); raises LossError if none is known."""
    found = None if groups is None else groups()
    if found is None or not (found >= 0).any():
        raise LossError("A loss reads the groups of people: prepare photos with a column `group` (docs/prepare.md).")
    return found
