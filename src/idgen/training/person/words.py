"""Pseudo-words of one person: where they start, and the words whose statistics they have."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any, cast

import torch

from ...adapter import IdentityAdapter
from ...adapter.words import WordProjection
from ...errors import TrainingError
from ...files import read_text
from ...identity import Identity
from ...tiny.usage import Usage
from ..base import BaseModel

FEWEST = 8
"""Words that their mean and deviation need."""


def words_of(file: Path | None, usage: Usage) -> list[str]:
    """The words whose statistics pseudo-words have: of a file, those that the base model knows, or famous names."""
    if file is not None:
        return read_text(file, error=TrainingError).split()
    return (
        list(usage.words)
        or files("idgen.training.person").joinpath("famous_names.txt").read_text(encoding="utf-8").split()
    )


def adapter_of_words(
    base: BaseModel, person: Identity, start: str, num_words: int | None, normalise: Sequence[str] = ()
) -> IdentityAdapter:
    """A new adapter that has pseudo-words only, which start as words of a prompt.

    Args:
        base: Its text encoders read the words.
        person: The person; the adapter reads embeddings of the same face encoder.
        start: Words of a prompt that the pseudo-words start as.
        num_words: Pseudo-words, all of which start as the last token of `start`; as many as `start` has tokens, if
            None.
        normalise: Hold the pseudo-words to the mean and deviation of these words.

    Raises:
        TrainingError: The text encoders know too few of those words.
    """
    tokenizers = _tokenizers(base)
    starts = [_tokens(tokenizer, start) for tokenizer in tokenizers]
    adapter = IdentityAdapter.from_unet(
        base.unet,
        encoder=person.encoder,
        embedding_dim=person.dim,
        normalised=True,
        projection="none",
        text_encoders=base.text_encoders,
        num_words=num_words or len(starts[0]),
        adaptive_words=bool(normalise),
    )
    for i, (encoder, tokenizer) in enumerate(zip(base.text_encoders, tokenizers, strict=True)):
        projection = cast(WordProjection, adapter.to_words[str(i)])
        if normalise:
            projection.set_statistics(_single_tokens(encoder, tokenizer, normalise))
        tokens = starts[i] if num_words is None else starts[i][-1:] * num_words
        projection.initialise_at(_embeddings(encoder, tokens))
    return adapter.to(base.unet.device)


def _single_tokens(encoder: Any, tokenizer: Any, words: Sequence[str]) -> torch.Tensor:
    """Embeddings of the words that are one token, (words, text_dim)."""
    tokens = {found[0] for word in words if len(found := _tokens(tokenizer, word)) == 1}
    if len(tokens) < FEWEST:
        raise TrainingError(
            f"Only {len(tokens)} of {len(words)} words are one token of the text encoder; the mean and deviation of "
            f"pseudo-words need {FEWEST}. Give other words with --word-list, or --no-normalise-words."
        )
    return _embeddings(encoder, sorted(tokens))


def _embeddings(encoder: Any, tokens: Sequence[int]) -> torch.Tensor:
    return encoder.get_input_embeddings().weight[list(tokens)].detach().float()


def _tokens(tokenizer: Any, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False).input_ids


def _tokenizers(base: BaseModel) -> list[Any]:
    names = ("tokenizer", "tokenizer_2")
    return [found for name in names if (found := getattr(base.pipeline, name, None)) is not None]
