"""Prompts that vary pose, expression, light and style evenly, for the pictures of synthetic sets."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

STYLE = "style"
VARIATIONS: Mapping[str, tuple[str, ...]] = {
    STYLE: (
        *("a photo of a face",) * 4,
        "a black and white photo of a face",
        "a sepia photo of a face",
        "a pencil sketch of a face",
        "an oil painting of a face",
    ),
    "pose": ("", "looking to the front", "looking to the left", "looking to the right"),
    "expression": ("", "smiling", "laughing", "with a serious expression", "with an open mouth"),
    "light": ("", "dark", "bright", "in warm light", "in cold light"),
    "background": ("", "dark background", "light background", "blue background", "green background"),
}
"""What is varied → phrases. Half of the pictures are photos; a phrase is left out for a base that does not know its
words."""


@dataclass(frozen=True, kw_only=True)
class Variation:
    """A prompt, and what was varied in it → the phrase."""

    text: str
    phrases: Mapping[str, str]


def variations(count: int, seed: int, knows: Callable[[str], bool] = lambda phrase: True) -> list[Variation]:
    """The prompts of one person's pictures.

    Each phrase of each attribute is in as many of them as any other, give or take one (a Latin hypercube; McKay et al.
    1979): no attribute is tied to another one or to the person.

    Args:
        count: Number of prompts.
        seed: Seed of the combinations.
        knows: Whether the base knows all words of a phrase.
    """
    random = np.random.default_rng(seed)
    columns: dict[str, list[str]] = {}
    for name, phrases in VARIATIONS.items():
        known = [phrase for phrase in phrases if knows(phrase)]
        order = random.permutation(len(known))  # which of them occur once more, if they do not fit
        columns[name] = [known[order[i % len(known)]] for i in random.permutation(count)]
    found = []
    for i in range(count):
        phrases = {name: column[i] for name, column in columns.items() if column[i]}
        found.append(Variation(text=", ".join(phrases.values()), phrases=phrases))
    return found
