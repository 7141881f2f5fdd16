"""Every identity argument has an effect or raises an error of this package."""

from __future__ import annotations

import inspect
from typing import Any

import diffusers
import numpy as np
import pytest
import torch
from PIL import Image

from idgen import Identity
from idgen.errors import AdapterError, IdgenError
from tests.components import SIDE, TASKS, make_adapter, make_pipeline

from .kinds import ANNA, BRUNO, adapter_for, draw, every_pipeline, make, plain_over

OURS = (
    *("id_image", "id_embeds", "id_masks", "id_scale", "control_interval"),
    *("expression_image", "expression_scale"),
)


@every_pipeline
def test_before_and_after_an_adapter_is_loaded_identity_arguments_are_refused(
    family: str, task: str, kind: str
) -> None:
    pipeline = make(family, task, kind)

    def refuse_all() -> None:
        for arguments in ({"id_embeds": ANNA}, {"id_image": "anna.jpg"}, {"id_scale": 0.5}, {"control_interval": 2}):
            with pytest.raises(AdapterError):
                draw(pipeline, task, kind, **arguments)
        with pytest.raises(AdapterError, match="did you mean 'id_image'"):
            draw(pipeline, task, kind, id_img="anna.jpg")
        with pytest.raises(AdapterError, match="load_id_adapter"):
            pipeline.encode_identity("anna.jpg")
        assert pipeline.id_adapters == {}

    refuse_all()
    pipeline.load_id_adapter(adapter_for(pipeline, kind))
    with pytest.raises(AdapterError, match="did you mean"):
        draw(pipeline, task, kind, id_embed=ANNA)
    pipeline.unload_id_adapter()
    refuse_all()


@pytest.mark.parametrize(("family", "kind"), [("sd", "plain"), ("sdxl", "photomaker"), ("sdxl", "pulid")])
def test_from_pipe_carries_adapters_to_every_task_and_back(family: str, kind: str) -> None:
    source = make_pipeline(family)
    source.load_id_adapter(adapter_for(source, kind))
    anna = draw(source, "txt2img", kind, id_embeds=ANNA)
    autos = (diffusers.AutoPipelineForImage2Image, diffusers.AutoPipelineForInpainting)
    xl = "XL" if family == "sdxl" else ""
    kinds = [getattr(diffusers, f"StableDiffusion{xl}{task}Pipeline") for task in ("Img2Img", "Inpaint")]
    for task, auto, of_task in zip(TASKS[1:], autos, kinds, strict=True):
        for make_from in (auto, of_task):
            made: Any = make_from.from_pipe(source, dtype=torch.float32)
            made.set_progress_bar_config(disable=True)
            nobody = draw(made, task)
            assert np.abs(draw(made, task, kind, id_embeds=ANNA) - nobody).max() > 0.01
            back: Any = type(source).from_pipe(made, dtype=torch.float32)
            back.set_progress_bar_config(disable=True)
            assert np.array_equal(draw(back, "txt2img", kind, id_embeds=ANNA), anna)


@every_pipeline
def test_the_signature_has_stock_and_identity_arguments(family: str, task: str, kind: str) -> None:
    pipeline = make(family, task, kind)
    stock = inspect.signature(inspect.unwrap(type(pipeline).__call__)).parameters
    for _ in range(2):
        found = inspect.signature(pipeline.__call__).parameters
        assert {"prompt", "generator", "eta", "num_inference_steps", *OURS} <= set(found)
        assert [name for name in found if name not in OURS] == [name for name in stock if name != "self"]
        assert "id_embeds" in (pipeline.__call__.__doc__ or "")
        assert "adapter_name" in inspect.signature(pipeline.load_id_adapter).parameters
        pipeline.load_id_adapter(make_adapter(pipeline.unet))


@pytest.fixture(scope="module")
def loaded() -> Any:
    pipeline = make_pipeline()
    pipeline.load_id_adapter(make_adapter(pipeline.unet))
    return pipeline


def test_embeddings_as_insightface_and_diffusers_recipes_give_them(loaded: Any) -> None:
    numbers = ANNA.embedding()
    anna = draw(loaded, id_embeds=ANNA)
    photo = numbers[None, None]
    forms: dict[str, Any] = {
        "tensor": numbers,
        "row": numbers[None],
        "half": numbers.double(),
        "array (dim,)": numbers.numpy(),
        "array (1, dim)": numbers.numpy()[None],
        "float64": numbers.numpy().astype(np.float64),
        "list": numbers.tolist(),
        "list of one array": [numbers.numpy()],
        "dict": {"default": numbers.numpy()},
        "diffusers, one photo": torch.stack([numbers[None]]),
        "diffusers, with the zeros of guidance": torch.cat([torch.zeros_like(photo), photo]),
        "diffusers, in its list": [torch.cat([torch.zeros_like(photo), photo])],
    }
    for name, form in forms.items():
        np.testing.assert_allclose(draw(loaded, id_embeds=form), anna, atol=1e-6, err_msg=name)
    several = draw(loaded, prompt=["a", "b"], id_embeds=np.stack([numbers.numpy(), BRUNO.embedding().numpy()]))
    single = draw(loaded, prompt=["a", "b"], id_embeds=[ANNA, BRUNO])
    np.testing.assert_allclose(several, single, atol=1e-6)


def test_an_adapter_of_directions_reads_embeddings_of_any_length() -> None:
    pipeline = make_pipeline()
    pipeline.load_id_adapter(make_adapter(pipeline.unet, normalised=True))
    expected = draw(pipeline, id_embeds=ANNA.embedding())
    np.testing.assert_allclose(draw(pipeline, id_embeds=20 * ANNA.embedding().numpy()), expected, atol=1e-6)


WRONG: list[tuple[dict[str, Any], str]] = [
    ({"id_image": []}, "empty list"),
    ({"id_embeds": {}}, "empty"),
    ({"id_embeds": []}, "empty"),
    ({"id_embeds": np.zeros((64, 64, 3), np.uint8)}, "id_image"),
    ({"id_embeds": Image.new("RGB", (8, 8))}, "id_image"),
    ({"id_embeds": "anna.jpg"}, "id_image"),
    ({"id_embeds": torch.ones(9)}, "length 8"),
    ({"id_embeds": torch.tensor(1.0)}, "length 8"),
    ({"id_embeds": torch.full((8,), torch.nan)}, "finite"),
    ({"id_embeds": torch.zeros(8)}, "zeros"),
    ({"id_embeds": ANNA, "id_image": "anna.jpg"}, "not both"),
    ({"id_embeds": {"other": ANNA}}, "'other'"),
    ({"id_embeds": ANNA, "id_scale": -0.5}, ">= 0"),
    ({"id_embeds": ANNA, "id_scale": float("nan")}, ">= 0"),
    ({"id_embeds": ANNA, "id_scale": {"down": -1.0}}, ">= 0"),
    ({"id_embeds": ANNA, "id_scale": "strong"}, "number"),
    ({"id_embeds": ANNA, "id_scale": {"default": 0.5, "x": 1}}, "per adapter"),
    ({"id_embeds": ANNA, "id_scale": {"x": 1}}, "'x'"),
    ({"id_scale": 0.5}, "id_image or id_embeds"),
    ({"id_masks": [np.ones((8, 8), bool)]}, "id_image or id_embeds"),
    ({"control_interval": 2}, "id_image or id_embeds"),
    ({"id_embeds": ANNA, "control_interval": 2}, "has none"),
    ({"id_embeds": ANNA, "control_interval": 0}, "integer"),
    ({"id_embeds": ANNA, "control_interval": 1.5}, "integer"),
    ({"id_embeds": [ANNA, BRUNO]}, "1 prompt"),
    ({"id_embeds": [ANNA, BRUNO], "id_masks": [np.ones((8, 8), bool)]}, "one mask per person: got 1 for 2"),
    ({"id_embeds": ANNA, "id_masks": [np.zeros((8, 8), bool)]}, "empty"),
    ({"id_embeds": ANNA, "id_masks": [np.full((8, 8), 2.0)]}, r"\[0, 1\]"),
    ({"id_embeds": ANNA, "id_masks": [np.full((8, 8), 300)]}, r"\[0, 255\]"),
    ({"id_embeds": ANNA, "id_masks": [np.full((8, 8), np.nan)]}, r"\[0, 1\]"),
    ({"id_embeds": ANNA, "id_masks": [np.ones(8)]}, "shape"),
    ({"Id_embeds": ANNA} | {"id_emdebs": ANNA}, "id_embeds"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_invalid_identity_arguments_are_refused(loaded: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(IdgenError, match=message):
        draw(loaded, **arguments)


def test_masks_mean_the_same_in_every_form(loaded: Any) -> None:
    on = np.zeros((SIDE, SIDE), bool)
    on[:, : SIDE // 2] = True
    forms: dict[str, Any] = {
        "uint8 0/255": on.astype(np.uint8) * 255,
        "uint8 0/1": on.astype(np.uint8),
        "int64 0/1": on.astype(np.int64),
        "float": on.astype(np.float32),
        "float64": on.astype(np.float64),
        "(1, height, width)": on[None],
        "(height, width, 1)": on[..., None],
        "(height, width, 3)": np.repeat(on[..., None], 3, -1).astype(np.uint8) * 255,
        "tensor": torch.from_numpy(on),
        "tensor uint8": torch.from_numpy(on.astype(np.uint8)),
        "tensor (1, 1, height, width)": torch.from_numpy(on)[None, None].float(),
        "PIL 1": Image.fromarray(on),
        "PIL L": Image.fromarray(on.astype(np.uint8) * 255),
        "PIL RGB": Image.fromarray(on.astype(np.uint8) * 255).convert("RGB"),
        "larger": np.kron(on, np.ones((4, 4), bool)),
    }
    expected = draw(loaded, id_embeds=ANNA, id_masks=[on])
    assert np.abs(expected - draw(loaded, id_embeds=ANNA)).max() > 0.01
    for name, form in forms.items():
        np.testing.assert_allclose(draw(loaded, id_embeds=ANNA, id_masks=form), expected, atol=1e-6, err_msg=name)


def test_a_subclass_that_calls_its_parent_draws_the_person() -> None:
    source = make_pipeline()

    class Mine(diffusers.StableDiffusionPipeline):
        def __call__(self, prompt: str, **kwargs: Any) -> Any:  # pyright: ignore[reportIncompatibleMethodOverride]
            return super().__call__(prompt + " b", **kwargs)

    mine = Mine(**source.components, requires_safety_checker=False)
    mine.set_progress_bar_config(disable=True)
    mine.load_id_adapter(make_adapter(mine.unet))  # pyright: ignore[reportAttributeAccessIssue]
    source.load_id_adapter(mine.id_adapters["default"])  # pyright: ignore[reportAttributeAccessIssue]
    np.testing.assert_array_equal(draw(mine, id_embeds=ANNA), draw(source, prompt="a face b", id_embeds=ANNA))
    np.testing.assert_array_equal(draw(mine), draw(source, prompt="a face b"))


def test_two_adapters_have_scales_of_their_own() -> None:
    pipeline = make_pipeline()
    pipeline.load_id_adapter(make_adapter(pipeline.unet), adapter_name="one")
    pipeline.load_id_adapter(make_adapter(pipeline.unet, seed=9), adapter_name="two")
    one = draw(pipeline, id_embeds={"one": ANNA})
    np.testing.assert_allclose(draw(pipeline, id_embeds=ANNA, id_scale={"one": 1.0, "two": 0.0}), one, atol=1e-6)
    assert np.abs(draw(pipeline, id_embeds=ANNA) - one).max() > 0.01


def test_an_adapter_that_does_not_fit_the_new_pipeline_is_not_carried() -> None:
    pipeline = make_pipeline()
    pipeline.load_id_adapter(make_adapter(pipeline.unet))
    other = plain_over(pipeline)
    with pytest.raises(AdapterError, match="No identity adapter is loaded"):
        draw(other, id_embeds=Identity.random("test", 8, seed=3))
