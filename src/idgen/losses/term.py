"""`Term`: a loss or a reward with its weight, gate and mask."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import nn

from .gates import Gate

WHO = frozenset({"target_embeds", "target_features", "target_patches", "reference_embeds", "older_embeds", "persons"})
"""Inputs that identify the person: a term that reads one of them compares with the person."""
OF_FACES = WHO | frozenset(
    {
        *("generated_embeds", "generated_features", "generated_halves", "generated_patches", "frontality"),
        *("face_images", "landmarks", "negatives", "prior_embeds", "mixing"),
        *("token_offsets", "pseudo_words", "identity_values"),
    }
)
"""Inputs with a row for each face: a term that reads one of them returns a value for each face."""


class Term(NamedTuple):
    """A loss or a reward with its weight.

    Attributes:
        function: Called with the inputs that its parameters are named after; returns (batch,). Inputs for parameters
            with a default are optional. A loss that pools samples has a parameter `counts`, (batch,) of booleans: the
            samples that count for this term. It must not read the others.
        weight: Factor in the sum.
        gate: Factor at a sample's timestep; None for 1 everywhere.
        valid: Name of the input, (batch,) of booleans, that masks the term: `"face_found"` for a term that reads a
            face. Masked samples contribute 0, and do not change the value or gradient of other samples.
        encoder: Stored name of the face encoder whose embeddings it reads, if there are several; see `Inputs.by`.
        centre: (dim,), mean of its embeddings, for a term that compares embeddings relative to it; None for others.
    """

    function: Callable[..., Any]
    weight: float = 1.0
    gate: Gate | None = None
    valid: str | None = None
    encoder: str | None = None
    centre: torch.Tensor | None = None

    @property
    def of_identity(self) -> bool:
        """Whether the term compares with the person or reads a generated face."""
        return self.valid is not None or bool(WHO & parameters(self.function).keys())

    @property
    def of_faces(self) -> bool:
        """Whether the term returns a value for each face of a picture."""
        return bool(OF_FACES & parameters(self.function).keys())


def parameters(function: Callable[..., Any]) -> Mapping[str, inspect.Parameter]:
    """The inputs that a loss or reward reads, by name."""
    return inspect.signature(function.forward if isinstance(function, nn.Module) else function).parameters
