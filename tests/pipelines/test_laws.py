"""What holds in every stock pipeline, with and without ControlNet."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import accelerate
import diffusers
import numpy as np
import pytest
import torch

import idgen.pipelines
from idgen import Identity
from tests.components import FAMILIES, TASKS, call_arguments, make_adapter, make_pipeline

ANNA = Identity.random("test", 8, seed=1)
BRUNO = Identity.random("test", 8, seed=2)

every_pipeline = pytest.mark.parametrize(
    ("family", "task", "controlnet"),
    [(family, task, controlnet) for family in FAMILIES for task in TASKS for controlnet in (False, True)],
)


def draw(pipeline: Any, task: str = "txt2img", controlnet: bool = False, **arguments: Any) -> np.ndarray:
    return pipeline(**call_arguments(task, controlnet, **arguments)).images


@every_pipeline
def test_unload_restores_bit_for_bit(family: str, task: str, controlnet: bool) -> None:
    pipeline = make_pipeline(family, task, controlnet)
    weights = {name: tensor.clone() for name, tensor in pipeline.unet.state_dict().items()}
    stock = draw(pipeline, task, controlnet)
    stock_class, attributes = type(pipeline), set(vars(pipeline))

    pipeline.load_id_adapter(make_adapter(pipeline.unet))
    assert isinstance(pipeline, stock_class)
    assert np.array_equal(draw(pipeline, task, controlnet), stock), "no identity, no change"
    assert np.abs(draw(pipeline, task, controlnet, id_embeds=ANNA) - stock).max() > 0.02
    assert np.array_equal(draw(pipeline, task, controlnet, id_embeds=ANNA, id_scale=0.0), stock)
    assert np.array_equal(draw(pipeline, task, controlnet), stock), "nothing is left of the call before"

    pipeline.unload_id_adapter()
    assert type(pipeline) is stock_class
    assert set(vars(pipeline)) == attributes
    assert pipeline.unet.state_dict().keys() == weights.keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in pipeline.unet.state_dict().items())
    assert np.array_equal(draw(pipeline, task, controlnet), stock)


@every_pipeline
def test_batch_of_prompts_and_identities_equals_one_by_one(family: str, task: str, controlnet: bool) -> None:
    pipeline = make_pipeline(family, task, controlnet)
    pipeline.load_id_adapter(make_adapter(pipeline.unet))
    prompts, people = ["a face", "b b"], [ANNA, BRUNO]
    several = call_arguments(task, controlnet)
    for name in ("image", "mask_image", "control_image"):
        if name in several:
            several[name] = several[name].expand(2, -1, -1, -1)

    def generators(*seeds: int) -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in seeds]

    together = pipeline(**several | {"prompt": prompts, "generator": generators(1, 2)}, id_embeds=people).images
    for i in range(2):
        alone = draw(pipeline, task, controlnet, prompt=prompts[i], generator=generators(i + 1), id_embeds=people[i])
        np.testing.assert_allclose(together[i], alone[0], atol=1e-4)
    assert np.abs(together[0] - together[1]).max() > 0.02


@pytest.mark.parametrize("family", FAMILIES)
def test_several_pictures_for_a_prompt(family: str) -> None:
    pipeline = make_pipeline(family)
    pipeline.load_id_adapter(make_adapter(pipeline.unet))
    seeds = [torch.Generator().manual_seed(i) for i in range(4)]
    pictures = draw(pipeline, prompt=["a", "b"], num_images_per_prompt=2, generator=seeds, id_embeds=[ANNA, BRUNO])
    alone = draw(pipeline, prompt="b", generator=torch.Generator().manual_seed(2), id_embeds=BRUNO)
    np.testing.assert_allclose(pictures[2], alone[0], atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_guidance_cut_off_in_the_middle_of_a_run(family: str) -> None:
    from diffusers.callbacks import SDCFGCutoffCallback, SDXLCFGCutoffCallback

    pipeline = make_pipeline(family)
    pipeline.load_id_adapter(make_adapter(pipeline.unet))
    kind = SDXLCFGCutoffCallback if family == "sdxl" else SDCFGCutoffCallback
    batches = []
    pipeline.unet.register_forward_pre_hook(lambda _, args: batches.append(len(args[0])))
    cut = kind(cutoff_step_ratio=0.4)
    tensors = {"callback_on_step_end": cut, "callback_on_step_end_tensor_inputs": cut.tensor_inputs}
    picture = draw(pipeline, id_embeds=ANNA, num_inference_steps=5, **tensors)
    assert set(batches) == {1, 2}
    assert np.isfinite(picture).all()


@pytest.mark.parametrize("family", FAMILIES)
def test_guess_mode(family: str) -> None:
    pipeline = make_pipeline(family, controlnet=True)
    pipeline.load_id_adapter(make_adapter(pipeline.unet))
    stock = draw(pipeline, controlnet=True, guess_mode=True)
    assert np.abs(draw(pipeline, controlnet=True, guess_mode=True, id_embeds=ANNA) - stock).max() > 0.02


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("guidance_scale", [1.0, 5.0])
def test_perturbed_attention_guidance(family: str, guidance_scale: float) -> None:
    """With a PAG scale near zero, the picture is that of the pipeline without PAG."""
    plain = make_pipeline(family)
    kind = diffusers.StableDiffusionXLPAGPipeline if family == "sdxl" else diffusers.StableDiffusionPAGPipeline
    components = {name: part for name, part in plain.components.items() if name not in ("image_encoder",)}
    pag: Any = kind(**components, pag_applied_layers=["mid"])
    adapter = make_adapter(plain.unet)
    plain.load_id_adapter(adapter)
    expected = draw(plain, id_embeds=ANNA, guidance_scale=guidance_scale)
    plain.unload_id_adapter()
    pag.load_id_adapter(adapter)
    found = draw(pag, id_embeds=ANNA, guidance_scale=guidance_scale, pag_scale=1e-6)
    np.testing.assert_allclose(found, expected, atol=1e-4)
    assert np.abs(draw(pag, id_embeds=ANNA, guidance_scale=guidance_scale, pag_scale=3.0) - expected).max() > 1e-3
    without = draw(pag, id_embeds=ANNA, guidance_scale=guidance_scale, pag_scale=0.0)
    np.testing.assert_allclose(without, expected, atol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_saved_pipeline_opens_in_plain_diffusers(family: str, tmp_path: Path) -> None:
    pipeline = make_pipeline(family)
    stock = draw(pipeline)
    pipeline.load_id_adapter(make_adapter(pipeline.unet))
    pipeline.save_pretrained(tmp_path)
    again = diffusers.DiffusionPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert type(again).__module__.startswith("diffusers.")
    assert type(again).__mro__[1] is not idgen.pipelines.IdentityAdapterMixin
    assert np.array_equal(draw(again), stock)


def test_custom_pipeline_file(tmp_path: Path) -> None:
    make_pipeline().save_pretrained(tmp_path)
    file = Path(__file__).parents[2] / "pipelines" / "stable_diffusion"
    pipeline = diffusers.DiffusionPipeline.from_pretrained(
        tmp_path, custom_pipeline=str(file), trust_remote_code=True, safety_checker=None
    )
    pipeline.set_progress_bar_config(disable=True)
    pipeline.load_id_adapter(make_adapter(pipeline.unet))
    assert isinstance(pipeline, idgen.pipelines.StableDiffusionPipeline)
    assert np.isfinite(draw(pipeline, id_embeds=ANNA)).all()
    pipeline.unload_id_adapter()
    assert isinstance(pipeline, idgen.pipelines.StableDiffusionPipeline)


@pytest.mark.parametrize("offload", ["model", "sequential"])
def test_offloading(offload: str) -> None:
    """accelerate's hooks move weights around each forward; sequential offload keeps them on the meta device.

    diffusers' own `enable_sequential_cpu_offload` is not called, since it fails on transformers 5 text encoders.
    """
    pipeline = make_pipeline()
    pipeline.load_id_adapter(make_adapter(pipeline.unet))
    expected = draw(pipeline, id_embeds=ANNA)
    if offload == "model":
        pipeline.enable_model_cpu_offload(device="cpu")
    else:
        accelerate.cpu_offload(pipeline.unet, torch.device("cpu"))
        assert next(pipeline.unet.parameters()).device.type == "meta"
    np.testing.assert_allclose(draw(pipeline, id_embeds=ANNA), expected, atol=1e-5)
    assert pipeline.id_adapters["default"].device == torch.device("cpu")


def test_precision_follows_the_pipeline() -> None:
    pipeline = make_pipeline()
    pipeline.load_id_adapter(make_adapter(pipeline.unet))
    expected = draw(pipeline, id_embeds=ANNA)
    for component in (pipeline.unet, pipeline.vae, pipeline.text_encoder):
        torch.nn.Module.to(component, torch.bfloat16)
    assert np.abs(draw(pipeline, id_embeds=ANNA) - expected).mean() < 0.02
