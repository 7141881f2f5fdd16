"""Guidance halves, regions, progress and prompt lengths are derived from the pipeline, or the call is refused."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, EulerDiscreteScheduler, HeunDiscreteScheduler
from PIL import Image

from idgen import Identity
from idgen.adapter import ScaleSchedule
from idgen.errors import AdapterError
from tests.components import FAMILIES, SIDE, TASKS, call_arguments, make_adapter, make_pipeline, seeded

from .kinds import ANNA, BRUNO, adapter_for, draw, every_pipeline, make


def halves_that_see_a_person(pipeline: Any, act: Callable[[Identity], Any]) -> list[list[bool]]:
    """For each call of the UNet in its first step, which rows differ between two people."""
    outputs: list[torch.Tensor] = []
    handle = pipeline.unet.register_forward_hook(lambda _, __, output: outputs.append(output[0]))
    act(ANNA)
    annas = list(outputs)
    outputs.clear()
    act(BRUNO)
    handle.remove()
    rows = len(annas) if len(annas) < 3 else 1
    return [
        [bool((a - b).abs().max() > 1e-6) for a, b in zip(x, y, strict=True)]
        for x, y in list(zip(annas, outputs, strict=True))[:rows]
    ]


@every_pipeline
def test_the_negative_half_of_guidance_sees_no_person(family: str, task: str, kind: str) -> None:
    pipeline = make(family, task, kind)
    pipeline.load_id_adapter(adapter_for(pipeline, kind))
    positive = [True, True] if kind == "pag" else [True]
    for guidance in (1.0, 5.0):
        # arguments that are left at their defaults count too: PAG's scale is 3
        settings: dict[str, Any] = {"guidance_scale": guidance, "num_inference_steps": 2}
        act = partial(draw, pipeline, task, kind, **settings)
        found = halves_that_see_a_person(pipeline, lambda who, act=act: act(id_embeds=who))
        assert found[0] == ([False] if guidance > 1 else []) + positive


MODULAR = {"txt2img": {"height": SIDE, "width": SIDE}, "img2img": {"strength": 0.9}}


def modular(task: str) -> Any:
    from diffusers.modular_pipelines.stable_diffusion_xl import StableDiffusionXLAutoBlocks

    stock = make_pipeline("sdxl", task)
    pipeline = StableDiffusionXLAutoBlocks().init_pipeline()
    pipeline.update_components(**{name: part for name, part in stock.components.items() if part is not None})
    pipeline.update_components(force_zeros_for_empty_prompt=True)
    return pipeline, stock


@pytest.mark.parametrize("task", MODULAR)
@pytest.mark.parametrize("guided", [True, False])
def test_modular_diffusers_draw_what_the_stock_pipeline_draws(task: str, guided: bool) -> None:
    pipeline, stock = modular(task)
    guider = diffusers.ClassifierFreeGuidance(guidance_scale=5.0 if guided else 1.0)
    pipeline.update_components(guider=guider)
    picture = Image.fromarray((torch.rand(SIDE, SIDE, 3, generator=seeded(5)) * 255).byte().numpy())
    arguments: dict[str, Any] = {"prompt": "a face", "num_inference_steps": 3, "output_type": "np", **MODULAR[task]}
    if task == "img2img":
        arguments["image"] = picture

    def call(**changes: Any) -> np.ndarray:
        return pipeline(**arguments, generator=seeded(6), output="images", **changes)

    def call_stock(**changes: Any) -> np.ndarray:
        return stock(**arguments, generator=seeded(6), guidance_scale=5.0 if guided else 1.0, **changes).images

    with pytest.raises(AdapterError, match="No identity adapter"):
        call(id_embeds=ANNA)
    np.testing.assert_allclose(call(), call_stock(), atol=1e-4)
    adapter = make_adapter(pipeline.unet)
    pipeline.load_id_adapter(adapter)
    stock.load_id_adapter(adapter)
    anna = call_stock(id_embeds=ANNA)
    np.testing.assert_allclose(call(id_embeds=ANNA), anna, atol=1e-4)
    np.testing.assert_allclose(call(), call_stock(), atol=1e-4)
    assert np.abs(anna - call()).max() > 0.01
    seen = halves_that_see_a_person(pipeline, lambda who: call(id_embeds=who))
    assert seen[0] == [True]
    pipeline.unload_id_adapter()
    with pytest.raises(AdapterError, match="did you mean"):
        call(id_img=ANNA)


UNSUPPORTED = ("AnimateDiffPipeline", "StableDiffusionInstructPix2PixPipeline", "StableDiffusionPanoramaPipeline")


@pytest.mark.parametrize("name", UNSUPPORTED)
def test_unsupported_pipelines_are_refused_at_load(name: str) -> None:
    kind = getattr(diffusers, name)
    pipeline = kind.__new__(kind)
    with pytest.raises(AdapterError, match=f"{name} is not supported"):
        pipeline.load_id_adapter("anything")


@torch.no_grad()
def test_token_merging_with_regions_is_refused() -> None:
    pipeline = make_pipeline()
    pipeline.load_id_adapter(make_adapter(pipeline.unet))
    half = np.zeros((SIDE, SIDE), bool)
    half[:, : SIDE // 2] = True
    block = pipeline.unet.mid_block.attentions[0].transformer_blocks[0]
    stock = block.attn2.forward
    block.attn2.forward = lambda x, **kwargs: torch.cat([stock(x[:, :-1], **kwargs), x[:, -1:]], 1)
    draw(pipeline, id_embeds=ANNA)
    with pytest.raises(AdapterError, match="token merging"):
        draw(pipeline, id_embeds=[ANNA, BRUNO], id_masks=[half, ~half])


@pytest.mark.parametrize("family", FAMILIES)
def test_masks_lie_in_the_whole_picture_also_where_a_crop_is_inpainted(family: str) -> None:
    pipeline = make_pipeline(family, "inpaint")
    pipeline.load_id_adapter(make_adapter(pipeline.unet))
    whole = Image.fromarray((torch.rand(64, 64, 3, generator=seeded(5)) * 255).byte().numpy())
    painted = Image.new("L", (64, 64))
    painted.paste(255, (32, 32, 64, 64))
    arguments: dict[str, Any] = {"image": whole, "mask_image": painted, "padding_mask_crop": 0, "output_type": "pil"}

    def inpaint(**ours: Any) -> np.ndarray:
        return np.asarray(pipeline(**call_arguments("inpaint", **arguments), **ours).images[0], np.float32)

    quarter = np.zeros((64, 64), bool)
    quarter[32:, 32:] = True
    anna = inpaint(id_embeds=ANNA)
    np.testing.assert_allclose(inpaint(id_embeds=ANNA, id_masks=[quarter]), anna, atol=1)
    assert np.abs(anna - inpaint()).max() > 2
    with pytest.raises(AdapterError, match="outside"):
        inpaint(id_embeds=ANNA, id_masks=[~quarter])


SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "ddim": lambda config: DDIMScheduler.from_config(config),
    "euler": lambda config: EulerDiscreteScheduler.from_config(config),
    "karras": lambda config: EulerDiscreteScheduler.from_config(config, use_karras_sigmas=True),
    "continuous": lambda config: EulerDiscreteScheduler.from_config(config, timestep_type="continuous"),
    "edm": lambda _: diffusers.EDMEulerScheduler(),
    "heun": lambda config: HeunDiscreteScheduler.from_config(config),
}


@pytest.mark.parametrize("scheduler", SCHEDULERS)
@pytest.mark.parametrize("task", TASKS[:2])
def test_a_schedule_ends_after_its_share_of_the_steps(scheduler: str, task: str) -> None:
    pipeline = make_pipeline("sd", task)
    pipeline.scheduler = SCHEDULERS[scheduler](pipeline.scheduler.config)
    pipeline.load_id_adapter(make_adapter(pipeline.unet))
    acted: list[bool] = []
    layer = next(iter(pipeline.id_adapters["default"].config["layers"]))
    hooks = next(
        hook.__self__
        for hook in pipeline.unet.get_submodule(layer)._forward_pre_hooks.values()
        if hasattr(hook.__self__, "people")
    )
    pipeline.unet.get_submodule(layer).register_forward_hook(lambda *_: acted.append(hooks.people is not None))
    steps: dict[str, Any] = {"num_inference_steps": 10} | ({"strength": 0.8} if task == "img2img" else {})
    draw(pipeline, task, id_embeds=ANNA, id_scale=ScaleSchedule(end=0.5), **steps)
    done = 0.2 if task == "img2img" else 0.0
    expected = (0.5 - done) / (1 - done)
    assert 0 < sum(acted) < len(acted)
    assert acted == sorted(acted, reverse=True)
    assert abs(sum(acted) / len(acted) - expected) <= 1.5 / 10


@pytest.mark.parametrize("order", [1, 2])
def test_control_interval_counts_steps(order: int) -> None:
    pipeline = make("sd", "txt2img", "identity_net")
    pipeline.load_id_adapter(make_adapter(pipeline.unet))
    if order == 2:
        pipeline.scheduler = HeunDiscreteScheduler.from_config(pipeline.scheduler.config)
    computed: list[int] = []
    pipeline.controlnet.conv_in.register_forward_hook(lambda *_: computed.append(1))
    draw(pipeline, "txt2img", "identity_net", id_embeds=ANNA, num_inference_steps=6, control_interval=2)
    assert len(computed) == 3


def test_the_same_net_twice_is_refused() -> None:
    from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel

    pipeline = make("sd", "txt2img", "identity_net")
    pipeline.load_id_adapter(make_adapter(pipeline.unet))
    net = pipeline.controlnet
    pipeline.register_modules(controlnet=MultiControlNetModel([net, net]))
    picture = torch.rand(1, 3, SIDE, SIDE)
    with pytest.raises(AdapterError, match="twice"):
        draw(pipeline, "txt2img", "identity_net", id_embeds=ANNA, image=[picture, picture])


def test_the_length_before_the_word_counts_textual_inversions_of_several_vectors() -> None:
    pipeline = make_pipeline()
    pipeline.tokenizer.add_tokens(["zzz", *(f"zzz_{i}" for i in range(1, 40))])  # as load_textual_inversion does
    pipeline.text_encoder.resize_token_embeddings(128)
    pipeline.load_id_adapter(make_adapter(pipeline.unet, text_encoders=[pipeline.text_encoder]))
    anna, bruno = (draw(pipeline, prompt="zzz <id>", id_embeds=who, id_scale=0.0) for who in (ANNA, BRUNO))
    assert np.abs(anna - bruno).max() > 1e-4, "the word is read"
    with pytest.raises(AdapterError, match="Move it forward"):
        draw(pipeline, prompt="zzz zzz <id>", id_embeds=ANNA)
