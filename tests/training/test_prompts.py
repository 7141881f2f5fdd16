"""The prompts of an update: pseudo-words, their places, and tokens."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from idgen.errors import TrainingError
from idgen.faces.parts import part_masks
from idgen.training.batch import Batch
from idgen.training.config import LossConfig
from idgen.training.denoising_inputs import DenoisingInputs
from tests.components import seeded

from .runs import LATENT, RandomPeople, make_step, run


def test_cached_text_does_not_hide_words() -> None:
    step = make_step(words=2)
    batch = RandomPeople(2, prompt="a <id> at sea").make(0)
    cached = Batch(**{**vars(batch), **step.base.encode(batch.prompts)})
    assert torch.equal(run(step, cached, backward=False).values, run(step, batch).values)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_an_update_tokenises_each_prompt_once(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """For each text encoder, with the pseudo-words and without them, whatever reads the prompts."""
    step = make_step(family, words=2, losses=LossConfig.only(preservation=0.1, localisation=0.1))
    tokenised, kind = [], type(step.base.pipeline.tokenizer)
    tokenise = kind._encode_plus
    monkeypatch.setattr(kind, "_encode_plus", lambda *given, **named: tokenised.append(1) or tokenise(*given, **named))
    run(step, RandomPeople(2, prompt="a <id> at sea", xl=family == "sdxl").make(0))
    assert len(tokenised) == 2 * len(step.base.text_encoders)


def test_words_are_found_in_the_prompts_that_hold_them() -> None:
    step = make_step(words=2, losses=LossConfig.only(localisation=1.0))
    person = step.encode(RandomPeople(2).make(0))
    places, named = step.base.word_places(["a <id> at sea", "the sea"], person)
    assert named.tolist() == [True, False]
    assert places.tolist() == [[2, 3], [0, 0]]
    wordless = make_step()
    nameless = wordless.encode(RandomPeople(1).make(0))
    with pytest.raises(TrainingError, match="no pseudo-words"):
        wordless.base.word_places(["a <id>"], nameless)
    unnamed = run(step, RandomPeople(2, prompt="the sea").make(0))
    assert unnamed.terms["localisation"].sum == 0
    named_by_prompt = run(step, RandomPeople(2, prompt="a <id> at sea").make(0))
    assert named_by_prompt.terms["localisation"].sum != 0


def test_words_learn_from_prompts_that_name_the_person() -> None:
    step = make_step(losses=LossConfig.only(words=0.01), words=2)
    run(step, RandomPeople(2, prompt="a <id> at sea").make(0))
    assert all(weight.grad is not None and weight.grad.any() for weight in step.adapter.to_words.parameters())


def test_each_pseudo_word_attends_to_its_part() -> None:
    """Masks are those of the parts, in the order of the words; empty without a face, or without the word."""
    step = make_step(words=2, losses=LossConfig.only(localisation=1.0), word_parts=("mouth", "eyes"))
    batch = replace(RandomPeople(3).make(0), prompts=("a <id>", "a <id>", "the sea"))
    masks = DenoisingInputs(step, batch, seeded(1)).token_masks
    expected = part_masks(batch.landmarks / step.scale, LATENT, LATENT, ("mouth", "eyes"))
    assert masks.shape == (3, 2, LATENT, LATENT)
    assert torch.equal(masks[0], expected[0])
    assert not masks[1:].any()  # the second target shows no face
    own = make_step(
        words=2,
        word_parts=("mouth", "eyes"),
        find_parts=lambda given, parts: torch.ones(len(given), len(parts), LATENT, LATENT),
    )
    assert DenoisingInputs(own, batch, seeded(1)).token_masks[0].all()
    with pytest.raises(TrainingError, match="each of the 2 pseudo-words of the adapter, not 1: mouth"):
        make_step(words=2, word_parts=("mouth",))
