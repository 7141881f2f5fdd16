"""Pseudo-words: identity → word embeddings in a prompt (the text branch of PhotoVerse, arXiv 2309.05793)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from ..errors import AdapterError
from .projection import standardise_linear
from .state import active, active_state


class WordProjection(nn.Module):
    """Projects an identity embedding to word embeddings of a text encoder.

    Args:
        embedding_dim: Length of an identity embedding.
        num_words: Pseudo-words per identity.
        text_dim: Width of the text encoder's word embeddings.
    """

    def __init__(self, embedding_dim: int, num_words: int, text_dim: int) -> None:
        super().__init__()
        self.num_words = num_words
        self.proj = nn.Sequential(
            nn.Linear(embedding_dim, 2 * embedding_dim),
            nn.LayerNorm(2 * embedding_dim),
            nn.GELU(),
            nn.Linear(2 * embedding_dim, num_words * text_dim),
        )

    def forward(self, id_embeds: torch.Tensor) -> torch.Tensor:
        """(batch, embedding_dim) → (batch, num_words, text_dim)."""
        return self.proj(id_embeds).unflatten(-1, (self.num_words, -1))

    @torch.no_grad()
    def initialise_like(self, embeddings: nn.Module) -> None:
        """Initialise the words with the mean and deviation of a text encoder's own word embeddings."""
        table: Any = embeddings.weight
        last = self.proj[-1]
        assert isinstance(last, nn.Linear)
        last.bias.copy_(table.float().mean(0).repeat(self.num_words))
        # the input of the last layer is GELU of unit noise, whose mean square is 0.425
        nn.init.normal_(last.weight, std=float(table.float().std(0).mean()) / (0.425 * last.in_features) ** 0.5)

    def standardise_input(self, embeddings: torch.Tensor) -> None:
        """See `Projection`."""
        first = self.proj[0]
        assert isinstance(first, nn.Linear)
        standardise_linear(first, embeddings)


@contextmanager
def pseudo_words(text_encoder: nn.Module, words: Sequence[torch.Tensor], marker: int) -> Iterator[None]:
    """Replace the word embeddings of marker tokens by pseudo-words inside the `with`.

    It holds in this thread and context only. A hook on `get_input_embeddings()` replaces the embeddings, so neither
    the weights nor the tokenizer change, and gradients flow into `words`.

    Args:
        text_encoder: Any transformers model with input embeddings.
        words: (rows, num_words, text_dim) for each person in the image; one row for all prompts, or one per prompt.
            With several people, the markers stand for them in turn.
        marker: The marker token, `num_words` times in a row for each placeholder: the begin-of-text token, which
            otherwise occurs at the start of a prompt only. The first token of a prompt is never a marker.
    """
    call = _Words()

    def read(_: nn.Module, args: tuple, embedded: torch.Tensor) -> torch.Tensor | None:
        marked = args[0] == marker
        marked[:, 0] = False
        if active_state(call) is None or not marked.any():
            return None
        embedded = embedded.clone()
        for row, places in enumerate(marked):
            where = places.nonzero()[:, 0]
            embedded[row, where] = _in_turn(words, row, len(marked), len(where)).to(embedded)
        return embedded

    handle = text_encoder.get_input_embeddings().register_forward_hook(read)  # pyright: ignore[reportCallIssue]
    try:
        with active(call, words):
            yield
    finally:
        handle.remove()


class _Words:
    """The owner of one call's words; see `state.active`."""


def _in_turn(words: Sequence[torch.Tensor], row: int, rows: int, places: int) -> torch.Tensor:
    """The word embeddings for the markers of one prompt, (places, text_dim)."""
    for person in words:
        if len(person) not in (1, rows):
            raise AdapterError(
                f"Got pseudo-words of {len(person)} identities for {rows} prompts; pass one identity per prompt."
            )
    turn = torch.cat([person[row if len(person) > 1 else 0] for person in words])
    return turn.repeat(-(-places // len(turn)), 1)[:places]
