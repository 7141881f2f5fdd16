"""Pictures through PhotoMaker's files are those of the published arithmetic, through whole runs."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from idgen import Identity
from idgen.adapter import ScaleSchedule
from idgen.errors import EncoderMismatchError
from tests.components import call_arguments, seeded
from tests.pipelines.photomaker import SIDE, analyzer_for, embeddings, load, make_photomaker, photo

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


@pytest.mark.parametrize("guess_mode", [False, True])
def test_a_controlnet_reads_the_text_alone_and_the_pooled_embedding_of_the_step(
    guess_mode: bool, tmp_path: Path
) -> None:
    """Identity from the first step on, and from the second."""
    variant, people = "photomaker-v2", [photo(1), photo(2)]
    stock, file = make_photomaker(variant, tmp_path, controlnet=True)
    ours, _ = make_photomaker(variant, tmp_path, controlnet=True)
    parts = file.make()
    merge_lora(stock.unet, parts["lora_weights"])
    tokens = tokens_of(parts["id_encoder"], people, embeddings(variant, people), SIDE)
    alone, _, _ = encode_text(stock, BEFORE, BEHIND, 1)
    fused, pooled = embeds_of(stock, parts["id_encoder"], BEFORE, BEHIND, tokens)
    call = call_arguments(controlnet=True, num_inference_steps=2, output_type="latent", guess_mode=guess_mode)

    def read_alone(_: Any, args: Any, kwargs: dict[str, Any]) -> Any:
        text = kwargs["encoder_hidden_states"]
        return args, kwargs | {"encoder_hidden_states": torch.cat([text[:-1], alone])}

    stock.controlnet.register_forward_pre_hook(read_alone, with_kwargs=True)
    given = call | {"prompt_embeds": fused, "pooled_prompt_embeds": pooled}
    del given["prompt"]
    expected = stock(**given).images
    load(ours, file, tmp_path)
    call["prompt"] = f"{BEFORE} <id> {BEHIND}"
    found = ours(**call | {"generator": seeded(6)}, id_image=people, id_scale=1.0).images
    assert (found - expected).abs().max() <= 1e-5 * expected.abs().max()
    assert not ours.controlnet._forward_pre_hooks
    later = ours(**call | {"generator": seeded(6)}, id_image=people, id_scale=ScaleSchedule(start=0.5)).images
    assert (later - found).abs().max() > 1e-3 * expected.abs().max()


def test_half_strength_is_half_way_between_the_word_and_the_fused_word(tmp_path: Path) -> None:
    pipe, file = make_photomaker("photomaker-v1", tmp_path)
    load(pipe, file, tmp_path)
    read: list[torch.Tensor] = []
    pipe.unet.register_forward_hook(
        lambda _, __, kwargs, ___: read.append(kwargs["encoder_hidden_states"][1]), with_kwargs=True
    )
    person = pipe.encode_identity(photo(1))
    for scale in (0.0, 0.5, 1.0):
        pipe(**call_arguments(prompt="a man <id> b", num_inference_steps=1), id_embeds=person, id_scale=scale)
    none, half, full = read
    assert (full - none).abs().amax(-1).nonzero()[:, 0].tolist() == [4], "a, m, a, n: one word changes"
    torch.testing.assert_close(half, (none + full) / 2)


@pytest.mark.parametrize("variant", ["photomaker-v1", "photomaker-v2"])
def test_an_identity_keeps_what_the_adapter_reads(variant: str, tmp_path: Path) -> None:
    pipe, file = make_photomaker(variant, tmp_path)
    load(pipe, file, tmp_path)
    people = [photo(1), photo(2, 64, 40)]
    call = {"prompt": "a man <id>", "num_inference_steps": 2}
    drawn = pipe(**call_arguments(**call), id_image=people).images
    person = pipe.encode_identity(people)
    assert person.image_encoder == pipe.id_adapters["default"].config["image_encoder"]
    assert person.image_encoder is not None
    assert person.image_encoder.startswith(f"{variant}-")
    person.save(tmp_path / "person.safetensors")
    again = Identity.load(tmp_path / "person.safetensors")
    assert (pipe(**call_arguments(**call), id_embeds=again).images == drawn).all()
    folder = tmp_path / "folder"
    pipe.id_adapters["default"].save_pretrained(folder)
    pipe.load_id_adapter(folder, face_analyzer=analyzer_for(variant))
    assert (pipe(**call_arguments(**call), id_embeds=again).images == drawn).all()

    other, changed = make_photomaker(variant, tmp_path / "folder", seed=5)  # another image encoder of the same name
    load(other, changed, tmp_path / "folder")
    for wrong in (again, replace(again, features=again.features[:, :, :64])):  # pyright: ignore[reportOptionalSubscript]
        with pytest.raises(EncoderMismatchError, match="image features of 'photomaker"):
            other(**call_arguments(**call), id_embeds=wrong)


def test_precision_and_offloading(tmp_path: Path) -> None:
    pipe, file = make_photomaker("photomaker-v2", tmp_path)
    load(pipe, file, tmp_path)
    call: dict[str, Any] = {"id_image": photo(1), "id_scale": 1.0}
    arguments = {"prompt": "a man <id>", "num_inference_steps": 2}
    expected = pipe(**call_arguments(**arguments), **call).images
    pipe.enable_model_cpu_offload(device="cpu")
    assert abs(pipe(**call_arguments(**arguments), **call).images - expected).max() < 1e-5
    pipe.remove_all_hooks()
    for component in (pipe.unet, pipe.vae, pipe.text_encoder, pipe.text_encoder_2):
        torch.nn.Module.to(component, torch.bfloat16)
    assert abs(pipe(**call_arguments(**arguments), **call).images - expected).mean() < 0.05
