"""Adapters that change the prompt: where `<id>` may be, and what such an adapter cannot do."""

from __future__ import annotations

from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from idgen.errors import AdapterError, BlockedIdentityError, IdentityError
from idgen.pipelines.fused_prompts import TriggeredPrompt
from idgen.provenance import IdentityBlocklist
from tests.components import make_adapter, make_pipeline, seeded

from .kinds import ANNA, BRUNO, adapter_for, draw, make
from .test_meaning import modular


@pytest.fixture(scope="module")
def loaded() -> Any:
    pipeline = make_pipeline("sdxl")
    pipeline.load_id_adapter(adapter_for(pipeline, "photomaker"))
    return pipeline


@pytest.mark.parametrize(
    ("text", "before", "behind"),
    [
        ("a man <id> at sea", "a man", "at sea"),
        ("a man img, smiling", "a man", ", smiling"),
        ("a man <id>", "a man", ""),
        ("a man<id>'s imgur, IMG", "a man", "'s imgur, IMG"),
        ("<my-style> woman <id>", "<my-style> woman", ""),
    ],
)
def test_where_a_prompt_is_split(text: str, before: str, behind: str) -> None:
    assert TriggeredPrompt.parse(text) == TriggeredPrompt(before, behind)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"prompt": "a man"}, "exactly once, .* got 0"),
    ({"prompt": "a man IMG"}, "got 0"),
    ({"prompt": "a man <id> and a woman <id>"}, "got 2"),
    ({"prompt": "a man <id> and a woman img"}, "got 2"),
    ({"prompt": "<id> at sea"}, "class word"),
    ({"prompt": "a man, <id>"}, "class word"),
    ({"prompt": "a b " * 40 + "man <id>"}, "Move it forward"),
    ({"prompt": "a man <id>", "prompt_2": "a man"}, "got 0"),
    ({"prompt": "a man <id>", "prompt_2": "man <id>"}, "same place"),
    ({"prompt": ["a man <id>", "a man"]}, "got 0"),
    ({"prompt": None, "prompt_embeds": torch.ones(1, 77, 32)}, "instead of prompt_embeds"),
    ({"prompt": "a man <id>", "id_masks": [np.ones((8, 8), bool)]}, "id_masks"),
    ({"prompt": "a man <id>", "id_scale": {"down": 1.0}}, "one number"),
    ({"prompt": "a man <id>", "id_embeds": [ANNA, BRUNO]}, "1 prompt"),
    ({"prompt": "a man <id>", "id_embeds": ANNA.embedding()}, "image features"),
    ({"prompt": "a man <id>", "id_embeds": None}, "requires id_image or id_embeds"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_wrong_calls_are_refused(loaded: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises((AdapterError, IdentityError), match=message):
        draw(loaded, **{"id_embeds": ANNA, **arguments})  # pyright: ignore[reportArgumentType]


def test_a_word_of_the_prompt_that_is_img_stays_one_without_a_person(loaded: Any) -> None:
    assert np.array_equal(draw(loaded, prompt="a man img"), draw(make_pipeline("sdxl"), prompt="a man img"))


def test_prompts_of_several_people_are_fused_row_by_row(loaded: Any) -> None:
    def generators(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    prompts, people = ["a man <id>", "<b> b woman <id> c"], [ANNA, BRUNO]
    together = draw(loaded, prompt=prompts, id_embeds=people, id_scale=1.0, generator=generators(1, 2))
    same = draw(loaded, prompt=prompts, id_embeds=ANNA, id_scale=1.0, generator=generators(1, 2))
    for i in range(2):
        for batch, who in ((together, people[i]), (same, ANNA)):
            call: dict[str, Any] = {"prompt": prompts[i], "id_scale": 1.0, "generator": generators(i + 1)}
            np.testing.assert_allclose(batch[i], draw(loaded, id_embeds=who, **call)[0], atol=5e-4)


def test_only_one_adapter_changes_the_prompt_and_an_identity_net_reads_the_other() -> None:
    pipeline = make("sdxl", "txt2img", "identity_net")
    pipeline.load_id_adapter(adapter_for(pipeline, "photomaker"), adapter_name="photomaker")
    call: dict[str, Any] = {"prompt": "a man <id>", "id_scale": {"photomaker": 1.0}}
    with pytest.raises(AdapterError, match="such as InstantID"):
        draw(pipeline, "txt2img", "identity_net", id_embeds=ANNA, **call)
    pipeline.load_id_adapter(make_adapter(pipeline.unet), adapter_name="instantid")
    both = draw(pipeline, "txt2img", "identity_net", id_embeds=ANNA, **call)
    for people in ({"photomaker": BRUNO, "instantid": ANNA}, {"photomaker": ANNA, "instantid": BRUNO}):
        assert np.abs(both - draw(pipeline, "txt2img", "identity_net", id_embeds=people, **call)).max() > 0.01
    pipeline.load_id_adapter(adapter_for(pipeline, "photomaker"), adapter_name="second")
    with pytest.raises(AdapterError, match="Only one adapter"):
        draw(pipeline, "txt2img", "identity_net", id_embeds=ANNA, **call)


def test_nobody_on_a_blocklist_is_fused(loaded: Any) -> None:
    adapter = loaded.id_adapters["default"]
    loaded.id_blocklist = IdentityBlocklist.of(ANNA, threshold=0.9)
    try:
        with pytest.raises(BlockedIdentityError):
            draw(loaded, "txt2img", "photomaker", id_embeds=ANNA)
        with pytest.raises(BlockedIdentityError):
            adapter.encode(ANNA.embeddings[None], ANNA.features[None])  # pyright: ignore[reportOptionalSubscript]
        draw(loaded, "txt2img", "photomaker", id_embeds=BRUNO)
    finally:
        loaded.id_blocklist = None


def test_modular_diffusers_draw_what_the_stock_pipeline_draws() -> None:
    pipeline, stock = modular("txt2img")
    adapter = adapter_for(stock, "photomaker")
    call: dict[str, Any] = {"prompt": "a man <id> b", "id_embeds": ANNA, "id_scale": 1.0}
    stock.load_id_adapter(adapter)
    expected = draw(stock, **call)
    pipeline.load_id_adapter(adapter)
    pipeline.update_components(guider=diffusers.ClassifierFreeGuidance(guidance_scale=5.0))
    steps = {"num_inference_steps": 3, "output_type": "np", "height": 32, "width": 32, "generator": seeded(6)}
    np.testing.assert_allclose(pipeline(**call, **steps, output="images"), expected, atol=5e-4)
