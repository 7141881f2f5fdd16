"""Losses on embeddings relative to their mean."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F

from .negatives import Bank
from .parametrisation import at_least_float32

EMBEDDINGS = frozenset(
    {"generated_embeds", "target_embeds", "reference_embeds", "prior_embeds", "older_embeds", "negatives"}
)
"""Inputs that are centred."""


def relative_to(centre: torch.Tensor, inputs: Mapping[str, Any]) -> dict[str, Any]:
    """The inputs of a loss, with embeddings relative to a centre.

    Args:
        centre: (dim,), mean of embeddings of unit length.
        inputs: Inputs by name; those in `EMBEDDINGS` are centred, the others are kept.
    """
    return {name: _centred(value, centre) if name in EMBEDDINGS else value for name, value in inputs.items()}


def centred(embeds: torch.Tensor, centre: torch.Tensor) -> torch.Tensor:
    """`e / ‖e‖ − centre`, (..., dim), in at least float32.

    The faces of an encoder can lie in a narrow cone: those of different people have a mean cosine of 0.84 with dlib's
    network. Relative to their mean it is about 0, so that cosines use their whole range.
    """
    return F.normalize(at_least_float32(embeds), dim=-1) - centre.to(embeds.device)


def _centred(value: Any, centre: torch.Tensor) -> Any:
    if callable(value):
        return lambda persons: _centred(value(persons), centre)
    if isinstance(value, Bank):
        return value._replace(embeds=centred(value.embeds, centre))
    return centred(value, centre)
