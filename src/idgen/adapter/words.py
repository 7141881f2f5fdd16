"""Word embeddings at marked places of a prompt: pseudo-words of an identity, or the class word again.

A marker is a begin-of-text token, which otherwise occurs at the start of a prompt only.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, TypeAlias

import torch
import torch.nn.functional as F
from torch import nn

from ..errors import AdapterError
from .projection import standardise_linear
from .state import active, active_state


class WordProjection(nn.Module):
    """Projects an identity embedding to word embeddings of a text encoder (PhotoVerse, arXiv 2309.05793).

    Args:
        embedding_dim: Length of an identity embedding.
        num_words: Pseudo-words per identity.
        text_dim: Width of the text encoder's word embeddings.
        adaptive: Whether the words have the mean and deviation of a set of words: `σ (v − mean v)/std v + μ`
            (adaptive instance normalisation, StableIdentity, arXiv 2401.15975, section 3.2). μ and σ, one number for
            each dimension, are set by `set_statistics`.
    """

    def __init__(self, embedding_dim: int, num_words: int, text_dim: int, adaptive: bool = False) -> None:
        super().__init__()
        self.adaptive = adaptive
        self.num_words = num_words
        self.proj = nn.Sequential(
            nn.Linear(embedding_dim, 2 * embedding_dim),
            nn.LayerNorm(2 * embedding_dim),
            nn.GELU(),
            nn.Linear(2 * embedding_dim, num_words * text_dim),
        )
        if adaptive:
            self.mean: torch.Tensor
            self.deviation: torch.Tensor
            self.register_buffer("mean", torch.zeros(text_dim))
            self.register_buffer("deviation", torch.ones(text_dim))

    def forward(self, id_embeds: torch.Tensor) -> torch.Tensor:
        """(batch, embedding_dim) → (batch, num_words, text_dim)."""
        words = self.proj(id_embeds).unflatten(-1, (self.num_words, -1))
        return F.layer_norm(words, words.shape[-1:]) * self.deviation + self.mean if self.adaptive else words

    @torch.no_grad()
    def set_statistics(self, words: torch.Tensor) -> None:
        """Give the pseudo-words the mean and deviation of word embeddings, (words, text_dim), two or more."""
        self.mean.copy_(words.float().mean(0))
        self.deviation.copy_(words.float().std(0))

    @torch.no_grad()
    def initialise_at(self, words: torch.Tensor) -> None:
        """Initialise the pseudo-words of every identity with word embeddings, (num_words, text_dim).

        Adaptive words are as close to them as their statistics allow.
        """
        last = self.proj[-1]
        assert isinstance(last, nn.Linear)
        start = (words.float() - self.mean) / self.deviation.clamp(min=1e-6) if self.adaptive else words.float()
        last.weight.zero_()
        last.bias.copy_(start.flatten())

    @torch.no_grad()
    def initialise_like(self, embeddings: nn.Module) -> None:
        """Initialise the words with the mean and deviation of a text encoder's own word embeddings.

        Adaptive words keep them in training, where others soon grow to many times that size.
        """
        table: Any = embeddings.weight
        if self.adaptive:
            self.set_statistics(table)
            return
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


Replacement: TypeAlias = Callable[[torch.Tensor, int, torch.Tensor], torch.Tensor]
"""Word embeddings of all prompts (prompts, length, text_dim), the index of a prompt, the places of its markers → the
word embeddings at these places, (places, text_dim)."""


def pseudo_words(text_encoder: nn.Module, words: Sequence[torch.Tensor], marker: int) -> AbstractContextManager[None]:
    """Replace the word embeddings of marker tokens by pseudo-words inside the `with`; gradients flow into `words`.

    Args:
        text_encoder: Any transformers model with input embeddings.
        words: (rows, num_words, text_dim) for each person in the image; one row for all prompts, or one per prompt.
            With several people, the markers stand for them in turn.
        marker: The marker token, `num_words` times in a row for each placeholder.
    """

    def of_people(embedded: torch.Tensor, row: int, places: torch.Tensor) -> torch.Tensor:
        return _in_turn(words, row, len(embedded), len(places))

    return replaced_markers(text_encoder, marker, of_people)


def repeated_word(text_encoder: nn.Module, marker: int) -> AbstractContextManager[None]:
    """Replace the word embeddings of marker tokens by that of the token before them inside the `with`."""

    def of_word_before(embedded: torch.Tensor, row: int, places: torch.Tensor) -> torch.Tensor:
        return embedded[row, places[:1] - 1].expand(len(places), -1)

    return replaced_markers(text_encoder, marker, of_word_before)


@contextmanager
def replaced_markers(text_encoder: nn.Module, marker: int, replacement: Replacement) -> Iterator[None]:
    """Replace the word embeddings of marker tokens inside the `with`, in this thread and context only.

    A hook on `get_input_embeddings()` replaces the embeddings, so neither the weights nor the tokenizer change. The
    first token of a prompt is never a marker.

    Args:
        text_encoder: Any transformers model with input embeddings.
        marker: The marker token.
        replacement: Called for each prompt with markers.
    """
    call = _Call()

    def read(_: nn.Module, args: tuple, embedded: torch.Tensor) -> torch.Tensor | None:
        marked = args[0] == marker
        marked[:, 0] = False
        if active_state(call) is None or not marked.any():
            return None
        changed = embedded.clone()
        for row, places in enumerate(marked):
            if len(where := places.nonzero()[:, 0]):
                changed[row, where] = replacement(embedded, row, where).to(embedded)
        return changed

    handle = text_encoder.get_input_embeddings().register_forward_hook(read)  # pyright: ignore[reportCallIssue]
    try:
        with active(call, replacement):
            yield
    finally:
        handle.remove()


class _Call:
    """The owner of one call's word embeddings; see `state.active`."""


def _in_turn(words: Sequence[torch.Tensor], row: int, rows: int, places: int) -> torch.Tensor:
    """The word embeddings for the markers of one prompt, (places, text_dim)."""
    for person in words:
        if len(person) not in (1, rows):
            raise AdapterError(
                f"Got pseudo-words of {len(person)} identities for {rows} prompts; pass one identity per prompt."
            )
    turn = torch.cat([person[row if len(person) > 1 else 0] for person in words])
    return turn.repeat(-(-places // len(turn)), 1)[:places]
