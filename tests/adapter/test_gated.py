"""Gated layers equal GLIGEN's as diffusers has them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import UNet2DConditionModel
from torch import nn

from idgen.adapter import IdentityAdapter, RandomFusion
from idgen.adapter.layers import module_key
from idgen.checkpoints import native
from idgen.errors import AdapterError
from idgen.losses import AttentionRecorder, increment_loss
from tests.components import TO_COMPILE, make_adapter, make_unet

from .decoupled import tokens_of
from .test_attention import random_tokens, unet_inputs


def gated(unet: nn.Module, **config: Any) -> IdentityAdapter:
    return make_adapter(unet, placement="sequential", **config)


class Tokens(nn.Module):
    """In place of a UNet's `position_net`, which computes GLIGEN's tokens."""

    def forward(self, objs: torch.Tensor) -> torch.Tensor:
        return objs


def with_gligen(family: str, adapter: IdentityAdapter, unet: nn.Module) -> UNet2DConditionModel:
    """The same UNet with GLIGEN's layers in its blocks, which diffusers calls itself."""
    other: Any = make_unet(family, attention_type="gated")
    other.load_state_dict(unet.state_dict(), strict=False)
    for path in adapter.config["layers"]:
        block: Any = other.get_submodule(path.removesuffix(".attn2"))
        block.fuser.load_state_dict(adapter.branches[module_key(path)].state_dict())
        block.fuser.attn.heads = block.attn2.heads
    other.position_net = Tokens()
    return other


@pytest.mark.parametrize("family", ["sd", "sdxl"])
@torch.no_grad()
def test_the_layers_are_gligens(family: str) -> None:
    unet = make_unet(family)
    adapter = gated(unet)
    adapter.attach(unet)
    person, inputs = random_tokens(adapter), unet_inputs(unet)
    before = unet(**inputs).sample
    with adapter.activate([person], num_images=2):
        found = unet(**inputs).sample
    reference = with_gligen(family, adapter, unet)
    expected = reference(**inputs, cross_attention_kwargs={"gligen": {"objs": tokens_of(person, 2, 2)}}).sample
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-4)
    assert (expected - before).abs().max() > 0.01
    assert torch.equal(unet(**inputs).sample, before)


@torch.no_grad()
def test_a_compiled_unet() -> None:
    """A new adapter changes no bit of it, and a trained one changes the same as without compilation."""
    torch.compiler.reset()
    unet = make_unet(**TO_COMPILE)
    adapter = gated(unet)
    adapter.attach(unet)
    gates = [weight for name, weight in adapter.named_parameters() if "alpha" in name]

    def draw() -> torch.Tensor:
        with adapter.activate([random_tokens(adapter)], num_images=2):
            return unet(**unet_inputs(unet)).sample

    expected = draw()
    unet.compile(backend="eager", fullgraph=True)
    before, trained = unet(**unet_inputs(unet)).sample, [gate.clone() for gate in gates]
    for gate in gates:
        gate.zero_()
    assert torch.equal(draw(), before)
    for gate, value in zip(gates, trained, strict=True):
        gate.copy_(value)
    torch.testing.assert_close(draw(), expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_increment_is_zero_outside_the_mask() -> None:
    """In every layer, for each person; and a mask of ones is no mask."""
    unet = make_unet()
    adapter = gated(unet)
    adapter.attach(unet)
    one, two = random_tokens(adapter, seed=1), random_tokens(adapter, seed=2)
    left = torch.zeros(16, 16)
    left[:, :8] = 1
    face = left.expand(4, 1, -1, -1)

    everywhere, masked, both = (
        record(unet, adapter, people, masks)
        for people, masks in (([one], None), ([one], [left]), ([one, two], [left, torch.zeros(16, 16)]))
    )
    assert (increment_loss(everywhere, face) > 0).all()
    assert (increment_loss(everywhere, torch.ones_like(face)) == 0).all()
    for recorded in (masked, both):
        assert (increment_loss(recorded, face) == 0).all()
        assert all(layer.increment.abs().max() > 0 for layer in recorded.values())
    whole = record(unet, adapter, [one], [torch.ones(3, 5)])
    for path, layer in whole.items():
        torch.testing.assert_close(layer.increment, everywhere[path].increment, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def record(unet: Any, adapter: IdentityAdapter, people: list[Any], masks: list[torch.Tensor] | None) -> Any:
    with AttentionRecorder(unet) as recorder, adapter.activate(people, num_images=2, masks=masks):
        unet(**unet_inputs(unet))
        return recorder.take()


@torch.no_grad()
def test_people_without_masks_are_read_where_they_are_shown() -> None:
    unet = make_unet()
    adapter = gated(unet, max_people=2)
    adapter.attach(unet)
    one, two = random_tokens(adapter, seed=1), random_tokens(adapter, seed=2)
    inputs = unet_inputs(unet, batch=2)

    def draw(people: list[Any], shown: torch.Tensor | None = None) -> torch.Tensor:
        with adapter.activate(people, num_images=2, shown=shown):
            return unet(**inputs).sample

    both, first = draw([one, two]), draw([one])
    shown = draw([one, two], torch.tensor([[True, True], [True, False]]))
    torch.testing.assert_close(shown[0], both[0], atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(shown[1], first[1], atol=1e-4, rtol=1e-4)
    assert not torch.allclose(both[1], first[1], atol=1e-3)


def test_a_sequential_adapter_is_saved_and_loaded(tmp_path: Path) -> None:
    unet = make_unet()
    adapter = gated(unet)
    adapter.save_pretrained(tmp_path)
    again = IdentityAdapter.from_pretrained(tmp_path)
    assert native.plain_config(again) == native.plain_config(adapter)
    weights = again.state_dict()
    assert weights.keys() == adapter.state_dict().keys()
    assert all(torch.equal(tensor, weights[name]) for name, tensor in adapter.state_dict().items())
    assert any(name.endswith("alpha_attn") for name in weights)


def test_what_needs_the_text_attention_is_refused() -> None:
    unet = make_unet()
    with pytest.raises(AdapterError, match="placement must be one of parallel, sequential, got 'serial'"):
        make_adapter(unet, placement="serial")
    with pytest.raises(AdapterError, match=r"ortho='ortho'.*need placement 'parallel'"):
        gated(unet, ortho="ortho")
    adapter = gated(unet)
    with pytest.raises(AdapterError, match="num_zero=8"):
        adapter.set_fusion(None, 8)
    adapter.attach(unet)
    fusion = RandomFusion().draw(2)
    with pytest.raises(AdapterError, match="parallel"), adapter.activate([random_tokens(adapter)], 2, fusion=fusion):
        pass
    attention: Any = unet.get_submodule("mid_block.attentions.0.transformer_blocks.0.attn1")
    attention.register_forward_hook(lambda _, __, output: output[:, :3], prepend=True)  # as token merging would
    with adapter.activate([random_tokens(adapter)], num_images=2), pytest.raises(AdapterError, match="token merging"):
        unet(**unet_inputs(unet))
