"""Pseudo-words in text encoders: where they stand, what they leave alone, and what they start from."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from idgen import IdentityAdapter
from idgen.adapter.words import WordProjection, pseudo_words
from idgen.errors import AdapterError
from tests.components import TEXT_DIM, make_text_encoder, make_unet, seeded

BOS, EOS = 0, 1


def read(ids: list[list[int]], *words: torch.Tensor) -> torch.Tensor:
    encoder = make_text_encoder()
    with pseudo_words(encoder, words, BOS), torch.no_grad():
        return encoder(torch.tensor(ids)).last_hidden_state


def by_hand(ids: list[list[int]], words: list[list[torch.Tensor]]) -> torch.Tensor:
    """The same encoder with the markers' embeddings replaced in its table: a row of prompts at a time."""
    found = []
    for row, row_words in zip(ids, words, strict=True):
        encoder = make_text_encoder()
        encoder.resize_token_embeddings(64 + len(row_words), mean_resizing=False)
        table: Any = encoder.get_input_embeddings()
        table.weight.data[64:] = torch.stack(row_words)
        marked = [i for i, token in enumerate(row) if token == BOS and i > 0]
        ids_now = list(row)
        for new, place in enumerate(marked):
            ids_now[place] = 64 + new
        with torch.no_grad():
            found.append(encoder(torch.tensor([ids_now])).last_hidden_state)
    return torch.cat(found)


def words(rows: int, count: int, seed: int = 1) -> torch.Tensor:
    return torch.randn(rows, count, TEXT_DIM, generator=seeded(seed))


def test_one_person_in_several_places() -> None:
    who = words(1, 2)
    ids = [[BOS, 5, BOS, BOS, 7, BOS, BOS, EOS], [BOS, 5, 6, 7, BOS, BOS, 8, EOS]]
    expected = by_hand(ids, [[*who[0], *who[0]], [*who[0]]])
    assert torch.equal(read(ids, who), expected)


def test_a_person_for_each_prompt() -> None:
    who = words(2, 1)
    ids = [[BOS, 5, BOS, EOS], [BOS, BOS, 6, EOS]]
    assert torch.equal(read(ids, who), by_hand(ids, [[who[0, 0]], [who[1, 0]]]))
    with pytest.raises(AdapterError, match="2 identities for 3 prompts"):
        read([*ids, [BOS, BOS, 9, EOS]], who)


def test_several_people_take_turns() -> None:
    a, b = words(1, 1, 1), words(1, 1, 2)
    ids = [[BOS, BOS, 5, BOS, 6, BOS, EOS]]
    assert torch.equal(read(ids, a, b), by_hand(ids, [[a[0, 0], b[0, 0], a[0, 0]]]))


def test_prompts_without_the_marker_and_the_encoder_stay_as_they_are() -> None:
    ids = [[BOS, 5, 6, EOS]]
    assert torch.equal(read(ids, words(1, 1)), make_text_encoder()(torch.tensor(ids)).last_hidden_state)
    encoder = make_text_encoder()
    before = {name: weight.clone() for name, weight in encoder.state_dict().items()}
    with pseudo_words(encoder, [words(1, 1)], BOS):
        encoder(torch.tensor([[BOS, BOS, EOS]]))
    assert not encoder.get_input_embeddings()._forward_hooks
    assert all(torch.equal(weight, before[name]) for name, weight in encoder.state_dict().items())


def test_gradients_reach_the_words() -> None:
    who = words(1, 2).requires_grad_()
    encoder = make_text_encoder()
    with pseudo_words(encoder, [who], BOS):
        encoder(torch.tensor([[BOS, 4, BOS, BOS, EOS]])).last_hidden_state.square().mean().backward()
    assert who.grad is not None
    assert (who.grad.abs().amax(-1) > 0).all()


def test_starts_like_the_encoders_words() -> None:
    table = torch.nn.Embedding(1000, 48)
    table.weight.data = 0.02 * torch.randn(1000, 48, generator=seeded(2)) + 0.01
    torch.manual_seed(3)
    projection = WordProjection(128, 2, 48)
    projection.initialise_like(table)
    found = projection(torch.randn(500, 128, generator=seeded(4)))
    assert found.shape == (500, 2, 48)
    assert abs(float(found.std(0).mean()) / 0.02 - 1) < 0.15
    assert abs(float(found.mean()) - 0.01) < 0.002


def test_adaptive_words_of_an_adapter_keep_the_size_of_the_encoders_words_whatever_is_learned() -> None:
    text = make_text_encoder()
    adapter = IdentityAdapter.from_unet(
        make_unet(), encoder="test", embedding_dim=8, text_encoders=[text], num_words=2, adaptive_words=True
    )
    table: Any = text.get_input_embeddings().weight
    with torch.no_grad():
        for factor in (1.0, 30.0):
            for weight in adapter.to_words.parameters():
                weight.mul_(factor).add_(0.01 * torch.randn(weight.shape, generator=seeded(7)))
            (words,) = adapter.words(torch.randn(3, 8, generator=seeded(8)))
            assert words is not None
            unit = (words - table.mean(0)) / table.std(0)
            assert unit.mean(-1).abs().max() < 1e-5
            assert (unit.square().mean(-1) - 1).abs().max() < 1e-2


def test_an_adapter_with_words() -> None:
    adapter = IdentityAdapter.from_unet(
        make_unet("sdxl"), encoder="test", embedding_dim=8, text_encoders=[make_text_encoder(), None], num_words=2
    )
    first, second = adapter.words(torch.randn(3, 8, generator=seeded(5)))
    assert first is not None
    assert first.shape == (3, 2, TEXT_DIM)
    assert second is None
    person = adapter.encode(torch.randn(1, 4, 8, generator=seeded(6)))
    assert person.words[0] is not None
    assert person.words[0].shape == (1, 2, TEXT_DIM)
