"""Losses and rewards by several face encoders: the mean over encoders of every term that reads embeddings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TypeVar

from .term import parameters
from .weighted import WeightedTerms

Terms = TypeVar("Terms", bound=WeightedTerms)

OF_ENCODER = frozenset(
    {
        *("generated_embeds", "generated_features", "generated_halves"),
        *("target_embeds", "target_features", "reference_embeds"),
        *("negatives", "prior_embeds", "older_embeds"),
    }
)
"""Inputs that are another encoder's embeddings or features."""


def over_encoders(terms: Mapping[str, Terms]) -> Terms:
    """The terms of several encoders as one weighted sum.

    A term that reads embeddings is there once for each encoder, as NAME/ENCODER, with its weight divided by the number
    of encoders. Other terms are there once.

    Args:
        terms: Stored name of an encoder → the terms with the settings that fit it; the first one is the main encoder.
    """
    first = next(iter(terms.values()))
    if len(terms) == 1:
        return first
    found = {}
    for encoder, each in terms.items():
        for name, term in each.terms.items():
            if OF_ENCODER & parameters(term.function).keys():
                own = f"{name}/{encoder}".replace(".", "_")  # modules cannot have a dot in their names
                found[own] = term._replace(weight=term.weight / len(terms), encoder=encoder)
            elif each is first:
                found[name] = term
    return replace(first, terms=found)
