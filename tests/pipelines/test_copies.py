"""Copy, pickle, quantise, exchange, compile: the picture stays the same, and unload leaves no hook."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from peft import LoraConfig
from torch import nn

from idgen.adapter import ScaleSchedule
from tests.components import TO_COMPILE, make_adapter, make_pipeline, make_text_encoder, make_unet

from .kinds import ANNA, adapter_for, draw


class Wrapped(nn.Module):
    """What some quantisers put in a layer's place: a module around it, which has a copy of the layer's attributes."""

    def __init__(self, layer: nn.Linear, copied: bool) -> None:
        super().__init__()
        self.in_features, self.out_features = layer.in_features, layer.out_features
        if copied:
            self.__dict__.update({name: copy.copy(value) for name, value in layer.__dict__.items()})
        self.layer = copy.deepcopy(layer) if copied else layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.linear(x, self.layer.weight, self.layer.bias)


def replace_layers(pipeline: Any, make: Callable[[nn.Linear], nn.Module]) -> None:
    for module in list(pipeline.unet.modules()):
        for name, child in list(module.named_children()):
            if type(child) is nn.Linear:
                setattr(module, name, make(child))


def replaced(pipeline: Any, make: Callable[[nn.Linear], nn.Module]) -> Any:
    replace_layers(pipeline, make)
    return pipeline


def exchanged(pipeline: Any) -> Any:
    other = make_unet("sdxl" if hasattr(pipeline, "text_encoder_2") else "sd")
    other.load_state_dict(pipeline.unet.state_dict())
    pipeline.unet = other
    return pipeline


def with_peft(pipeline: Any) -> Any:
    pipeline.unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    return pipeline


def pickled(pipeline: Any) -> Any:
    pipeline = copy.copy(pipeline)
    pipeline.text_encoder = make_text_encoder()  # one that has run cannot be pickled, with transformers' own hooks
    if hasattr(pipeline, "text_encoder_2"):
        pipeline.text_encoder_2 = make_text_encoder(projection=True)
    return pickle.loads(pickle.dumps(pipeline))


CHANGES: dict[str, Callable[[Any], Any]] = {
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
    "pickle": pickled,
    "unet exchanged": exchanged,
    "layers wrapped": lambda pipeline: replaced(pipeline, lambda layer: Wrapped(layer, copied=False)),
    "layers copied": lambda pipeline: replaced(pipeline, copy.deepcopy),
    "layers copied with their hooks": lambda pipeline: replaced(pipeline, lambda layer: Wrapped(layer, copied=True)),
    "peft": with_peft,
    "dtype there and back": lambda pipeline: pipeline.to(torch.float64).to(torch.float32),
}


def hooks(module: nn.Module) -> Iterator[Any]:
    for part in module.modules():
        yield from part._forward_hooks.values()
        yield from part._forward_pre_hooks.values()


def with_lora(pipeline: Any, kind: str = "plain") -> Any:
    """An adapter whose LoRA acts."""
    adapter = adapter_for(pipeline, kind, lora_rank=2)
    for lora in adapter.loras.modules():
        if isinstance(lora, nn.Linear):
            nn.init.normal_(lora.weight, std=0.3)
    return adapter


@pytest.mark.parametrize(
    ("family", "kind"),
    [("sd", "plain"), ("sdxl", "photomaker"), ("sdxl", "pulid"), ("sd", "sequential")],
)
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_pipeline_draws_the_same(family: str, kind: str, change: str) -> None:
    pipeline = make_pipeline(family)
    nobody = draw(pipeline)
    pipeline.load_id_adapter(with_lora(pipeline, kind))

    def draw_anna(pipe: Any) -> np.ndarray:
        return draw(pipe, "txt2img", kind, id_embeds=ANNA)

    anna = draw_anna(pipeline)
    old = pipeline.unet
    changed = CHANGES[change](pipeline)
    for _ in range(2):
        np.testing.assert_allclose(draw_anna(changed), anna, atol=1e-5)
        np.testing.assert_allclose(draw(changed), nobody, atol=1e-5)
    if changed is not pipeline:
        np.testing.assert_array_equal(draw_anna(pipeline), anna)
        pipeline.unload_id_adapter()
        np.testing.assert_allclose(draw_anna(changed), anna, atol=1e-5)
    changed.unload_id_adapter()
    np.testing.assert_allclose(draw(changed), nobody, atol=1e-5)
    assert not list(hooks(changed.unet))
    assert not list(hooks(old))


def test_unload_right_after_layers_were_replaced_leaves_no_hook() -> None:
    for change in CHANGES:
        pipeline = make_pipeline()
        pipeline.load_id_adapter(with_lora(pipeline))
        old = pipeline.unet
        changed = CHANGES[change](pipeline)
        changed.unload_id_adapter()
        assert not list(hooks(changed.unet)), change
        if changed is pipeline:
            assert not list(hooks(old)), change


def test_an_exchanged_unet_is_not_kept_alive() -> None:
    import gc
    import weakref

    pipeline = make_pipeline()
    pipeline.load_id_adapter(make_adapter(pipeline.unet))
    old = weakref.ref(pipeline.unet)
    exchanged(pipeline)
    gc.collect()
    assert old() is None
    assert copy.deepcopy(pipeline.id_adapters["default"]).is_attached is False


@torch.no_grad()
def test_compiled_unet_with_a_schedule_and_in_a_pause() -> None:
    """`fullgraph` fails on anything that torch cannot trace."""
    torch.compiler.reset()
    pipeline = make_pipeline(**TO_COMPILE)
    pipeline.load_id_adapter(make_adapter(pipeline.unet))
    schedule = ScaleSchedule(start=0.3, function=lambda progress: 1 - progress)
    drawn = {scale: draw(pipeline, id_embeds=ANNA, id_scale=scale) for scale in (schedule, 0.5)}
    nobody = draw(pipeline)
    pipeline.unet.compile(backend="eager", fullgraph=True)
    for scale, expected in drawn.items():
        np.testing.assert_allclose(draw(pipeline, id_embeds=ANNA, id_scale=scale), expected, atol=1e-5)
    np.testing.assert_allclose(draw(pipeline), nobody, atol=1e-5)


def test_other_compiled_code_is_left_alone() -> None:
    torch.compiler.reset()
    traced = []

    def backend(graph: Any, _: Any) -> Any:
        traced.append(graph)
        return graph.forward

    compiled = torch.compile(lambda x: x + 1, backend=backend)
    compiled(torch.ones(2))
    pipeline = make_pipeline()
    pipeline.load_id_adapter(make_adapter(pipeline.unet))
    pipeline.unload_id_adapter()
    compiled(torch.ones(2))
    assert len(traced) == 1


@torch.no_grad()
def test_a_schedule_does_not_act_in_a_pause() -> None:
    unet = make_unet()
    adapter = make_adapter(unet)
    adapter.attach(unet)
    adapter.scale = ScaleSchedule(function=lambda progress: 1 + progress)
    inputs = {"sample": torch.ones(1, 4, 8, 8), "timestep": 500, "encoder_hidden_states": torch.ones(1, 5, 16)}
    nobody = unet(**inputs).sample
    with adapter.activate([adapter.encode(torch.ones(1, 8))], 1):
        assert not torch.equal(unet(**inputs).sample, nobody)
        with adapter.deactivate():
            assert torch.equal(unet(**inputs).sample, nobody)
