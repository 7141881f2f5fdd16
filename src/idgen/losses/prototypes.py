"""Prototypes: one vector for each person of the training set, in the space of the face encoder."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import LossError
from .parametrisation import at_least_float32
from .precision import full_precision
from .settings import DEFAULTS

Centres = Callable[[], torch.Tensor]
"""Returns the mean embedding of each person's photos, (people, dim), in the order of the numbers in `persons`."""


class PrototypeLoss(nn.Module):
    """Proto-triplet: `max(0, cos(g, c_k) − cos(g, c_y) + m)` with the nearest other prototype k.

    SuSana Distancia (arXiv 2305.09062) takes the distances of a sample to the prototypes of its class and of the
    nearest other class. Prototypes are the people's mean embeddings.

    With `learned_prototypes` they are parameters that start there. They are trained by the classification of the
    targets, `−ln softmax(cos(target, c)/τ)_y`, which is added to the loss; ProtoN (arXiv 2508.04381) learns prototypes
    along with a classification of people. No gradient leads from generated faces to the prototypes.

    Args:
        margin: m; the default fits the default face encoder, see `LossSettings`.
        temperature: τ of the classification.
        learned_prototypes: Whether the prototypes are trained.
        centres: Mean embeddings of the people.

    Raises:
        LossError: The margin is negative, τ is not positive, or `centres` is missing.
    """

    def __init__(
        self,
        margin: float = DEFAULTS.margin,
        temperature: float = DEFAULTS.temperature,
        learned_prototypes: bool = False,
        centres: Centres | None = None,
    ) -> None:
        super().__init__()
        if margin < 0 or temperature <= 0:
            raise LossError(f"margin must be >= 0 and temperature > 0, not {margin} and {temperature}.")
        self.margin, self.temperature = margin, temperature
        start = person_centres(centres)
        self.prototypes = nn.Parameter(start.clone()) if learned_prototypes else start

    def forward(
        self, generated_embeds: torch.Tensor, target_embeds: torch.Tensor, persons: torch.Tensor
    ) -> torch.Tensor:
        """(batch, dim), (batch, dim) and (batch,) → (batch,)."""
        if not isinstance(self.prototypes, nn.Parameter):
            self.prototypes = self.prototypes.to(generated_embeds.device)
        cosines = prototype_cosines(generated_embeds, self.prototypes.detach())
        own = cosines.gather(1, persons[:, None])
        others = cosines.scatter(1, persons[:, None], -torch.inf)
        loss = F.relu(self.margin - own[:, 0] + others.amax(1))
        if isinstance(self.prototypes, nn.Parameter):
            logits = prototype_cosines(target_embeds.detach(), self.prototypes) / self.temperature
            loss = loss + F.cross_entropy(logits, persons, reduction="none")
        return loss


class RelationLoss(nn.Module):
    """`KL(q ‖ p)` with `p = softmax(cos(g, c)/τ)` over the prototypes of all people, and q that of an older adapter.

    Prototype-sample relation distillation (arXiv 2303.14771; `methods/repe.py` in its code): what is learned anew does
    not change how faces compare with the people. The older adapter draws the same person from the same noise; its
    faces are constants. The cross-entropy in the code differs from KL by a constant.

    Args:
        temperature: τ; the default fits the default face encoder, see `LossSettings`.
        centres: Mean embeddings of the people.

    Raises:
        LossError: τ is not positive, or `centres` is missing.
    """

    def __init__(self, temperature: float = DEFAULTS.temperature, centres: Centres | None = None) -> None:
        super().__init__()
        if temperature <= 0:
            raise LossError(f"temperature must be > 0, not {temperature}.")
        self.temperature, self.prototypes = temperature, person_centres(centres)

    def forward(self, generated_embeds: torch.Tensor, older_embeds: torch.Tensor) -> torch.Tensor:
        """(batch, dim) both → (batch,)."""
        self.prototypes = self.prototypes.to(generated_embeds.device)
        found, wanted = (
            (prototype_cosines(embeds, self.prototypes) / self.temperature).log_softmax(1)
            for embeds in (generated_embeds, older_embeds.detach())
        )
        return F.kl_div(found, wanted, reduction="none", log_target=True).sum(1)


def prototype_cosines(embeds: torch.Tensor, prototypes: torch.Tensor) -> torch.Tensor:
    """(batch, dim) and (people, dim) → (batch, people)."""
    with full_precision(embeds):
        embeds = at_least_float32(embeds)
        return F.normalize(embeds, dim=-1) @ F.normalize(prototypes.to(embeds), dim=-1).T


def person_centres(centres: Centres | None) -> torch.Tensor:
    """The mean embeddings, float32; raises LossError without `centres`."""
    if centres is None:
        raise LossError("Losses with prototypes need centres, the mean embedding of each person.")
    return centres().float()
