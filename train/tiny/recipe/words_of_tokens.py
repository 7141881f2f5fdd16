"""Words that say what an adapter's tokens do, and a UNet that reads them so, without a training by denoising.

A UNet reads text by linear maps, the keys and values of its cross-attention, and captions use few directions of the
text encoder's states: in the built-in model, 61 of 128 have 99.9 % of their differences. The tokens fit beside them.

1. `make_words`: the adapter gets as many words as tokens. They learn to write the principal components of what its
   branches read of the tokens into the directions that captions use least.
2. `read_words`: a regression makes the keys and values of the UNet read of these words what the branches read of the
   tokens, and of texts what they read before.

Words and text share one attention, where tokens have their own, and texts are read a little differently than before;
`words_alone.py` trains what that costs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, cast

import torch
from diffusers.models.attention_processor import Attention
from torch import nn
from tqdm import tqdm

from idgen import IdentityAdapter
from idgen.adapter.layers import module_key
from idgen.adapter.words import WordProjection
from idgen.pipelines.prompts import PLACEHOLDER
from idgen.training.base import BaseModel

SUBJECT = "a face"
"""Replaces `<id>` in prompts without a person."""
PLAIN = f"a photo of {PLACEHOLDER}"
USED = 40
"""Directions that are left to the text, those in which captions differ most."""
UPDATES, BATCH, RATE = 1500, 48, 2e-3
KEYS, VALUES = 1.4, 1.5
"""Factors on what the branches read: in one attention with the text, the person has only a part of the weight."""
TEXT, COMMON = 1.0, 0.3
"""Weights in the regression: of texts beside words, and of what all texts have in common beside their differences."""
SIZE, BESIDE = 0.8, 0.03
"""Length of what a word writes, in that of the text encoder's states; weight of what it says beside that."""


class Read(NamedTuple):
    """The text encoder's states of words, (…, dim), and the tokens that the words stand for, (…, dim)."""

    states: torch.Tensor
    tokens: torch.Tensor


class Texts:
    """The directions of the text encoder's states that prompts without a person use.

    Args:
        states: (prompts, length, dim).

    Attributes:
        moment: (dim, dim), second moment of the differences, with a part of that of the mean.
        size: Mean length of a state.
        room: (dim, dim − USED), orthonormal directions that are used least.
    """

    def __init__(self, states: torch.Tensor) -> None:
        mean = states.mean(0)
        differences, common = (moment(each, each) for each in ((states - mean).flatten(0, 1), mean))
        self.moment = differences / differences.trace() + COMMON * common / common.trace()
        self.size = float(states.norm(dim=-1).mean())
        self.room = torch.linalg.eigh(self.moment).eigenvectors[:, : len(mean.T) - USED]  # the least come first


@dataclass(frozen=True, eq=False)
class People:
    """People to learn from, and prompts that name them.

    Attributes:
        base: Reads the prompts.
        adapter: Makes the tokens.
        prompts: With `<id>`.
        embeddings: (people, dim), as the adapter reads them.
    """

    base: BaseModel
    adapter: IdentityAdapter
    prompts: Sequence[str]
    embeddings: torch.Tensor

    def read(self, renewed: IdentityAdapter) -> Read:
        """What the words of another adapter say of some people, in random prompts; (people, words, dim) each."""
        chosen, said = torch.randint(len(self.embeddings), (BATCH,)), torch.randint(len(self.prompts), (BATCH,))
        embeddings, prompts = self.embeddings[chosen], [self.prompts[int(i)] for i in said]
        identity = renewed.encode(embeddings)
        places, _ = self.base.word_places(prompts, identity)
        states = self.base.encode(prompts, identity)["encoder_hidden_states"]
        return Read(states[torch.arange(BATCH)[:, None], places], tokens_of(self.adapter, embeddings))


def words_of_tokens(
    base: BaseModel, adapter: IdentityAdapter, captions: Sequence[str], embeddings: torch.Tensor
) -> IdentityAdapter:
    """The same adapter with new words, which the base's UNet then reads as the adapter reads its tokens.

    Args:
        base: With one text encoder. The keys and values of its UNet change.
        adapter: With branches. It does not change.
        captions: Of training photos.
        embeddings: (people, dim), as the adapter reads them.
    """
    named = [caption for caption in captions if PLACEHOLDER in caption]
    people = People(base, adapter.requires_grad_(False), [*named, *[PLAIN] * max(1, len(named))], embeddings)
    plain = [*dict.fromkeys(caption.replace(PLACEHOLDER, SUBJECT) for caption in (*captions, PLAIN, ""))]
    with torch.no_grad():
        parts = [base.encode(plain[i : i + BATCH])["encoder_hidden_states"] for i in range(0, len(plain), BATCH)]
        texts = Texts(torch.cat(parts))
    renewed = make_words(people, texts)
    with torch.no_grad():
        reads = [people.read(renewed) for _ in range(100)]
        read_words(base, adapter, Read(*(torch.cat(part).flatten(0, 1) for part in zip(*reads, strict=True))), texts)
    return renewed


def make_words(people: People, texts: Texts) -> IdentityAdapter:
    """The adapter with new words, trained so that the text encoder's state of a word, projected onto `texts.room`,
    equals the principal components of the word's token.
    """
    given = people.adapter
    changes = {"num_words": given.config["num_tokens"], "adaptive_words": False}
    renewed = IdentityAdapter.from_config(dict(given.config) | changes).requires_grad_(False)
    kept = {name: weight for name, weight in given.state_dict().items() if not name.startswith("to_words.")}
    renewed.load_state_dict(renewed.state_dict() | kept)
    (words,) = (cast(WordProjection, each) for each in renewed.to_words.values())
    words.standardise_input(people.embeddings)
    written = components(given, tokens_of(given, people.embeddings), texts.room.shape[1])
    written *= SIZE * texts.size / (tokens_of(given, people.embeddings) @ written).norm(dim=-1).mean()
    optimizer = torch.optim.AdamW(words.requires_grad_(True).parameters(), weight_decay=0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=UPDATES)
    for _ in (bar := tqdm(range(UPDATES), desc="words", mininterval=10)):
        states, tokens = people.read(renewed)
        wanted, said = tokens @ written, states @ texts.room
        beside = (states.square().sum() - said.square().sum()) / states.square().sum()
        loss = (said - wanted).square().sum() / wanted.square().sum() + BESIDE * beside
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        bar.set_postfix(error=f"{loss.item():.3f}", refresh=False)
    return renewed.requires_grad_(False)


def components(adapter: IdentityAdapter, tokens: torch.Tensor, count: int) -> torch.Tensor:
    """(dim, count), maps tokens, (…, dim), to the principal components of what the branches read of them."""
    weights = [weight for branch in adapter.branches.values() for weight in branch.parameters()]
    read = torch.stack([weight.T @ weight / weight.square().sum() for weight in weights]).sum(0)
    root = torch.linalg.cholesky(read + 1e-6 * read.trace() * torch.eye(len(read)))
    rows = tokens.flatten(0, -2) @ root  # as far apart as what the branches read
    return root @ torch.linalg.eigh(moment(rows, rows)).eigenvectors[:, -count:]


@torch.no_grad()
def read_words(base: BaseModel, adapter: IdentityAdapter, read: Read, texts: Texts) -> None:
    """Make the UNet read of words, (words, dim), what the branches read of their tokens."""
    for path, layer in base.unet.named_modules():
        if isinstance(layer, Attention) and module_key(path) in adapter.branches:
            branch: Any = adapter.branches[module_key(path)]
            for own, person, factor in ((layer.to_k, branch.to_k, KEYS), (layer.to_v, branch.to_v, VALUES)):
                weight = cast(nn.Linear, own).weight
                weight.add_(addition(weight, factor * person.weight, read, texts))


def addition(weight: torch.Tensor, wanted: torch.Tensor, read: Read, texts: Texts) -> torch.Tensor:
    """X that minimises E‖(W + X) h − V t‖² + λ E‖X d‖² for W = `weight`, V = `wanted`, states h of words, their tokens
    t, and states d of texts; λ is `TEXT` times the mean square of h.
    """
    states = moment(read.states, read.states)
    size = states.trace()
    ridge = 1e-5 * size * torch.eye(len(states))
    found = wanted @ moment(read.tokens, read.states) - weight @ states
    return torch.linalg.solve(states + TEXT * size * texts.moment + ridge, found, left=False)


def moment(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """(rows, m) and (rows, n) → the mean of their products, (m, n)."""
    return a.T @ b / len(a)


def tokens_of(adapter: IdentityAdapter, embeddings: torch.Tensor) -> torch.Tensor:
    """(people, dim) → (people, tokens, dim)."""
    tokens = adapter.encode(embeddings).tokens
    assert tokens is not None
    return tokens
