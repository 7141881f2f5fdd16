"""Pictures through PhotoMaker's files are those of the published arithmetic, through whole runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from idgen.adapter import ScaleSchedule
from tests.components import call_arguments
from tests.pipelines.photomaker import SIDE, embeddings, load, make_photomaker, photo

from .arithmetic_photomaker import embeds_of, encode_text, merge_lora, tokens_of

STEPS = 4
BEFORE, BEHIND = "a b man", "c, d"


def published(pipe: Any, file: Any, photos: list[Any], merge_step: int, **arguments: Any) -> torch.Tensor:
    """The run of PhotoMaker: text alone up to a step, the identity afterwards, the merged LoRA in all steps."""
    parts, layer = file.make(), -2 - (arguments.pop("clip_skip", None) or 0)
    merge_lora(pipe.unet, parts["lora_weights"])
    tokens = tokens_of(parts["id_encoder"], photos, embeddings(file.variant, photos), SIDE)
    alone, alone_pooled, _ = encode_text(pipe, BEFORE, BEHIND, 1, layer)
    fused, fused_pooled = embeds_of(pipe, parts["id_encoder"], BEFORE, BEHIND, tokens, layer)
    images = arguments.get("num_images_per_prompt", 1)

    def merge(_: Any, step: int, __: Any, tensors: dict[str, Any]) -> dict[str, Any]:
        if step == merge_step:
            negatives = len(tensors["prompt_embeds"]) - images
            for name, new in (("prompt_embeds", fused), ("add_text_embeds", fused_pooled)):
                new = new.repeat_interleave(images, 0)
                tensors[name] = torch.cat([tensors[name][:negatives], new])
        return tensors

    first = (fused, fused_pooled) if merge_step < 0 else (alone, alone_pooled)
    given = call_arguments(num_inference_steps=STEPS, output_type="latent", **arguments) | {
        "prompt_embeds": first[0],
        "pooled_prompt_embeds": first[1],
        "callback_on_step_end": merge,
        "callback_on_step_end_tensor_inputs": ["latents", "prompt_embeds", "add_text_embeds"],
    }
    del given["prompt"]
    if negative := given.pop("negative_prompt", None):
        embeds, pooled, _ = encode_text(pipe, negative, "", 1)  # diffusers reads the usual layer here
        given |= {"negative_prompt_embeds": embeds, "negative_pooled_prompt_embeds": pooled}
    return pipe(**given).images


CASES: list[tuple[str, int, int, dict[str, Any]]] = [
    ("photomaker-v1", 1, 0, {}),
    ("photomaker-v1", 3, 1, {"negative_prompt": "x y"}),
    ("photomaker-v2", 1, -1, {"guidance_scale": 1.0}),
    ("photomaker-v2", 2, 1, {"num_images_per_prompt": 2, "clip_skip": 1, "negative_prompt": "x"}),
]


@pytest.mark.parametrize(("variant", "photos", "merge_step", "arguments"), CASES)
def test_pictures_are_those_of_the_published_maths(
    variant: str, photos: int, merge_step: int, arguments: dict[str, Any], tmp_path: Path
) -> None:
    stock, file = make_photomaker(variant, tmp_path)
    ours, _ = make_photomaker(variant, tmp_path)
    people = [photo(seed, 40 + 9 * seed, 56) for seed in range(photos)]
    plain = ours(**call_arguments(output_type="latent")).images
    expected = published(stock, file, people, merge_step, **arguments)

    load(ours, file, tmp_path)
    for trigger in ("<id>", "img"):
        call = call_arguments(num_inference_steps=STEPS, output_type="latent", **arguments)
        call["prompt"] = f"{BEFORE} {trigger} {BEHIND}"
        scale = ScaleSchedule(start=(merge_step + 1) / STEPS)
        found = ours(**call, id_image=[people], id_scale=scale).images
        assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()

    ours.unload_id_adapter()
    assert torch.equal(ours(**call_arguments(output_type="latent")).images, plain)
