"""Classification of generated faces among the people of the training set."""

from __future__ import annotations

import torch
from torch import nn

from ..errors import LossError
from .prototypes import Centres, person_centres, prototype_cosines
from .settings import DEFAULTS


class IdentityHeadLoss(nn.Module):
    """Generalised cross-entropy `(1 − p^q)/q` with `p = softmax(cos(g, w)/τ)` of the person, and learned vectors w.

    A comp-sum loss (Mao, Mohri and Zhong, arXiv 2304.07288, section 2) with their τ = 1 + q: cross-entropy for q → 0,
    which fits wrong names too, and `1 − p` for q = 1, which tolerates them (Zhang and Sabuncu, arXiv 1805.07836). The
    same loss of the targets, which is added, trains the vectors. They start as the people's mean embeddings. The
    loss of generated faces does not train them: they would adapt to the errors of those faces.

    Args:
        temperature: τ; the default fits the default face encoder, see `LossSettings`.
        head_power: q, 0 to 1.
        centres: Mean embeddings of the people.

    Raises:
        LossError: τ is not positive, q is not in [0, 1], or `centres` is missing.
    """

    def __init__(
        self, temperature: float = DEFAULTS.temperature, head_power: float = 0.7, centres: Centres | None = None
    ) -> None:
        super().__init__()
        if temperature <= 0 or not 0 <= head_power <= 1:
            raise LossError(f"temperature must be > 0 and head_power in [0, 1], not {temperature} and {head_power}.")
        self.temperature, self.power = temperature, head_power
        self.vectors = nn.Parameter(person_centres(centres).clone())

    def forward(
        self, generated_embeds: torch.Tensor, target_embeds: torch.Tensor, persons: torch.Tensor
    ) -> torch.Tensor:
        """(batch, dim), (batch, dim) and (batch,) → (batch,)."""
        generated = self._entropy(generated_embeds, self.vectors.detach(), persons)
        return generated + self._entropy(target_embeds.detach(), self.vectors, persons)

    def _entropy(self, embeds: torch.Tensor, vectors: torch.Tensor, persons: torch.Tensor) -> torch.Tensor:
        logits = prototype_cosines(embeds, vectors) / self.temperature
        log_p = logits.log_softmax(1).gather(1, persons[:, None])[:, 0]
        return -torch.expm1(self.power * log_p) / self.power if self.power else -log_p
