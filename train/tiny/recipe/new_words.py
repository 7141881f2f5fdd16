"""Pseudo-words that start anew."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from idgen import IdentityAdapter
from idgen.adapter.words import WordProjection


def with_new_words(
    adapter: IdentityAdapter, text_encoders: Sequence[Any], embeddings: torch.Tensor
) -> IdentityAdapter:
    """The same adapter with new words: in the statistics of the text encoder's own, and with a standardised input.

    Without that, words grow to forty times the size of a text encoder's own in training, and people differ in few
    directions of them: 86 % of the variance between people lies in two, age and sex, in the built-in adapter.

    Args:
        adapter: It does not change.
        text_encoders: Of the base.
        embeddings: (people, dim), as the adapter reads them.
    """
    renewed = IdentityAdapter.from_config(dict(adapter.config) | {"adaptive_words": True})
    kept = {name: weight for name, weight in adapter.state_dict().items() if not name.startswith("to_words.")}
    renewed.load_state_dict(renewed.state_dict() | kept)
    for encoder, words in zip(text_encoders, renewed.to_words.values(), strict=True):
        assert isinstance(words, WordProjection)
        words.standardise_input(embeddings)
        words.initialise_like(encoder.get_input_embeddings())
    return renewed
