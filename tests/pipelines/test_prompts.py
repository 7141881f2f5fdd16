"""`<id>` in prompts of whole pipelines."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from idgen import Identity, IdentityAdapter
from idgen.adapter.words import pseudo_words
from idgen.errors import AdapterError
from tests.components import SIDE, call_arguments, make_adapter, make_pipeline, seeded


def load(family: str, encoders: tuple[bool, bool] = (True, True), num_words: int = 2) -> tuple[Any, IdentityAdapter]:
    """A pipeline with an adapter that has words for these of its text encoders."""
    pipe = make_pipeline(family)
    texts = [pipe.text_encoder, getattr(pipe, "text_encoder_2", None)][: 2 if family == "sdxl" else 1]
    torch.manual_seed(5)
    adapter = IdentityAdapter.from_unet(
        pipe.unet,
        encoder="test",
        embedding_dim=8,
        text_encoders=[text if on else None for text, on in zip(texts, encoders, strict=False)],
        num_words=num_words,
    ).eval()
    pipe.load_id_adapter(adapter)
    return pipe, adapter


def random_identity(seed: int = 1) -> Identity:
    return Identity(embeddings=torch.randn(1, 8, generator=seeded(seed)), encoder="test")


def encode(
    pipe: Any, adapter: IdentityAdapter, who: Identity, prompt: str, prompt_2: str | None = None
) -> dict[str, Any]:
    """Text embeddings with the person's words in them, by hand."""
    words = adapter.words(who.embedding()[None])
    kinds = [(pipe.text_encoder, words[0])]
    if hasattr(pipe, "text_encoder_2"):
        kinds.append((pipe.text_encoder_2, words[1]))
    from contextlib import ExitStack

    with ExitStack() as stack:
        for encoder, each in kinds:
            if each is not None:
                stack.enter_context(pseudo_words(encoder, [each], pipe.tokenizer.bos_token_id))
        names = ["prompt_embeds", "negative_prompt_embeds", "pooled_prompt_embeds", "negative_pooled_prompt_embeds"]
        options = {} if prompt_2 is None else {"prompt_2": prompt_2}
        found = pipe.encode_prompt(
            prompt, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=True, **options
        )
    return dict(zip(names, found, strict=False))


MARK = "<|startoftext|>" * 2


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_the_placeholder_is_the_person(family: str) -> None:
    pipe, adapter = load(family)
    who, call = random_identity(), call_arguments(prompt="a <id> at sea with <id>")
    found = pipe(**call, id_embeds=who, id_scale=0.0).images
    embeds = encode(pipe, adapter, who, f"a {MARK} at sea with {MARK}")
    by_hand = call_arguments() | embeds
    del by_hand["prompt"]
    assert (pipe(**by_hand).images == found).all()
    other = pipe(**call_arguments(prompt="a <id> at sea with <id>"), id_embeds=random_identity(2), id_scale=0.0).images
    assert abs(other - found).max() > 1e-4


def test_a_text_encoder_without_pseudo_words_reads_the_class_word() -> None:
    pipe, adapter = load("sdxl", (True, False))
    who = random_identity()
    found = pipe(**call_arguments(prompt="a <id> at sea"), id_embeds=who, id_scale=0.0).images
    by_hand = call_arguments() | encode(pipe, adapter, who, f"a {MARK} at sea", "a person at sea")
    del by_hand["prompt"]
    assert (pipe(**by_hand).images == found).all()


def test_negative_prompts_weights_and_tokenizers_stay() -> None:
    pipe, _ = load("sd")
    who = random_identity()
    before = {name: weight.clone() for name, weight in pipe.text_encoder.state_dict().items()}
    size = len(pipe.tokenizer)
    call: dict[str, Any] = {"prompt": "a face", "negative_prompt": "<id> blurred"}
    plain = pipe(**call_arguments(**call)).images
    assert (pipe(**call_arguments(**call), id_embeds=who, id_scale=0.0).images == plain).all()
    pipe(**call_arguments(prompt="<id>"), id_embeds=who)
    assert len(pipe.tokenizer) == size
    assert all(torch.equal(weight, before[name]) for name, weight in pipe.text_encoder.state_dict().items())


def test_a_list_of_prompts_and_people() -> None:
    pipe, _ = load("sd", num_words=1)
    people, prompts = [random_identity(1), random_identity(2)], ["a <id>", "<id> at sea"]
    call: dict[str, Any] = {"generator": [seeded(1), seeded(2)]}
    both = pipe(**call_arguments(prompt=prompts, **call), id_embeds=people).images
    for i in range(2):
        alone = pipe(**call_arguments(prompt=prompts[i], generator=seeded(i + 1)), id_embeds=people[i]).images
        assert abs(alone[0] - both[i]).max() <= 1e-4


def test_two_people_in_one_prompt() -> None:
    pipe, _ = load("sd", num_words=1)
    masks = [torch.ones(SIDE, SIDE)] * 2
    call: dict[str, Any] = {"id_masks": masks, "id_scale": 0.0}
    a, b = random_identity(1), random_identity(2)
    ab = pipe(**call_arguments(prompt="<id> and <id>"), id_embeds=[a, b], **call).images
    ba = pipe(**call_arguments(prompt="<id> and <id>"), id_embeds=[b, a], **call).images
    aa = pipe(**call_arguments(prompt="<id> and <id>"), id_embeds=[a, a], **call).images
    alone = pipe(**call_arguments(prompt="<id> and <id>"), id_embeds=a, id_scale=0.0).images
    assert abs(ab - ba).max() > 1e-5
    assert (aa == alone).all()


def test_long_prompts() -> None:
    pipe, _ = load("sd")
    words = "a b c d e " * 12  # 60 tokens of this alphabet
    pipe(**call_arguments(prompt=f"{words} <id> {words}"), id_embeds=random_identity())
    with pytest.raises(AdapterError, match=r"token 12\d of the prompt, but the text encoder reads 75"):
        pipe(**call_arguments(prompt=f"{words * 2} <id>"), id_embeds=random_identity())


def test_the_placeholder_requires_an_identity_and_pseudo_words() -> None:
    pipe, _ = load("sd")
    with pytest.raises(AdapterError, match="requires id_image or id_embeds"):
        pipe(**call_arguments(prompt="a <id>"))
    plain = make_pipeline()
    plain.load_id_adapter(make_adapter(plain.unet))
    with pytest.raises(AdapterError, match="has no pseudo-words"):
        plain(**call_arguments(prompt="a <id>"), id_embeds=random_identity())
