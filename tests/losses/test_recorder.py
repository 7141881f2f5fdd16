"""Recordings of real UNets, with and without an identity."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from peft import LoraConfig

from idgen.adapter import cross_attention_layers
from idgen.errors import LossError
from idgen.losses import (
    AttentionRecorder,
    Recording,
    editing_direction_loss,
    in_box_loss,
    increment_loss,
    layout_alignment_loss,
    localisation_loss,
    semantic_alignment_loss,
)
from idgen.losses.recorder import masks_at
from tests.components import make_adapter, make_unet

from .inputs import face_mask, normal


class Scene:
    """A tiny UNet in float64 with an adapter, and what they are called with."""

    def __init__(self, family: str = "sd", change: Callable[[Any], object] = lambda unet: None) -> None:
        self.unet = make_unet(family).double().requires_grad_(False)
        change(self.unet)
        self.adapter = make_adapter(self.unet).double()
        self.adapter.attach(self.unet)
        dim = self.unet.config["cross_attention_dim"]
        self.inputs: dict[str, Any] = {
            "sample": normal(2, 4, 8, 8, seed=1),
            "timestep": torch.tensor([300, 500]),
            "encoder_hidden_states": normal(2, 5, dim, seed=2),
        }
        if family == "sdxl":
            conditions = {"text_embeds": normal(2, 16, seed=3), "time_ids": torch.zeros(2, 6).double()}
            self.inputs["added_cond_kwargs"] = conditions

    def drawing(self, id_embeds: torch.Tensor) -> Any:
        return self.adapter.activate([self.adapter.encode(id_embeds)], num_images=2)

    def record(self, block: str = "", prompt: torch.Tensor | None = None) -> Recording:
        inputs = self.inputs if prompt is None else {**self.inputs, "encoder_hidden_states": prompt}
        with AttentionRecorder(self.unet, block) as recorder:
            self.unet(**inputs)
            return recorder.take()


ID_EMBEDS = normal(2, 8, seed=4)
CHANGES: dict[str, Callable[[Any], object]] = {
    "plain": lambda unet: None,
    "lora": lambda unet: unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_k", "to_out.0"])),
    "sliced": lambda unet: unet.set_attention_slice(1),
}


@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_recording_is_the_layers_arithmetic(family: str, change: str) -> None:
    scene = Scene(family, CHANGES[change])
    person = scene.adapter.encode(ID_EMBEDS)
    with scene.drawing(ID_EMBEDS):
        recording = scene.record()
    layers = cross_attention_layers(scene.unet)
    assert recording.keys() == layers.keys()
    for path, layer in recording.items():
        at: Any = layers[path]
        split = [x.unflatten(-1, (at.heads, -1)).transpose(1, 2) for x in (layer.query, layer.key)]
        weights = (split[0] @ split[1].mT / split[0].shape[-1] ** 0.5).softmax(-1)
        torch.testing.assert_close(layer.attention(), weights.mean(1))
        values = at.to_v(scene.inputs["encoder_hidden_states"]).unflatten(-1, (at.heads, -1)).transpose(1, 2)
        torch.testing.assert_close(layer.text_output, (weights @ values).transpose(1, 2).flatten(2))
        keys, values = scene.adapter.branches[path.replace(".", "/")](person.tokens)
        keys, values = (x.unflatten(-1, (at.heads, -1)).transpose(1, 2) for x in (keys, values))
        logits = keys @ split[0].mT / split[0].shape[-1] ** 0.5
        torch.testing.assert_close(layer.identity_attention(1)[:, 0], logits.softmax(-1).mean(1))
        weights = (split[0] @ keys.mT / split[0].shape[-1] ** 0.5).softmax(-1)
        torch.testing.assert_close(layer.increment, (weights @ values).transpose(1, 2).flatten(2))


def test_recording_changes_nothing_and_leaves_nothing() -> None:
    scene = Scene()
    hooks = [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in scene.unet.modules()]
    before = scene.unet(**scene.inputs).sample
    with AttentionRecorder(scene.unet) as recorder:
        assert torch.equal(scene.unet(**scene.inputs).sample, before)
        assert not any(layer.increment.any() for layer in recorder.take().values())  # nobody is drawn
        with pytest.raises(LossError, match="Call the UNet first"):
            recorder.take()
    assert [(len(m._forward_hooks), len(m._forward_pre_hooks)) for m in scene.unet.modules()] == hooks


def test_layers_of_one_block_only() -> None:
    recording = Scene().record("up_blocks.1")
    assert recording
    assert all(path.startswith("up_blocks.1.") for path in recording)
    with pytest.raises(LossError, match=r"up_blocks\.7"):
        Scene().record("up_blocks.7")


def test_fused_projections_are_refused() -> None:
    scene = Scene(change=lambda unet: unet.fuse_qkv_projections())
    with pytest.raises(LossError, match="fused"):
        scene.record()


MASK = torch.zeros(2, 1, 8, 8).double()
MASK[:, :, 2:6, 3:7] = 1
OTHER_PROMPT = normal(2, 5, 16, seed=8)
LOSSES: dict[str, Callable[..., torch.Tensor]] = {
    "semantic_alignment": lambda with_id, _, without_id, __: semantic_alignment_loss(with_id, without_id),
    "layout_alignment": lambda with_id, _, without_id, __: layout_alignment_loss(with_id, without_id),
    "increment": lambda with_id, *_: increment_loss(with_id, MASK),
    "localisation": lambda with_id, *_: localisation_loss(
        with_id, torch.tensor([[1, 2], [3, 4]]), torch.cat([MASK, MASK.flip(-1)], 1)
    ),
    "editing_direction": lambda a, b, c, d: editing_direction_loss(a, b, c, d, MASK),
    "in_box": lambda with_id, *_: in_box_loss(with_id, MASK, torch.ones(2, 1) > 0),
}


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("name", LOSSES)
def test_gradient_of_the_identity_through_the_unet(name: str, checkpointing: bool) -> None:
    """Finite differences of the whole way from embedding to loss; also when the UNet forgets and computes again."""
    scene = Scene()
    if checkpointing:
        scene.unet.train()
        scene.unet.enable_gradient_checkpointing()
    with torch.no_grad():
        without_id = scene.record(), scene.record(prompt=OTHER_PROMPT)

    def loss() -> torch.Tensor:
        return LOSSES[name](scene.record(), scene.record(prompt=OTHER_PROMPT), *without_id)

    id_embeds = ID_EMBEDS.clone().requires_grad_(True)
    with scene.drawing(id_embeds):
        value = loss()
        value.sum().backward()  # while the person is drawn: checkpointing runs the layers again
    assert value.shape == (2,)
    assert id_embeds.grad is not None
    assert (id_embeds.grad.abs().sum(1) > 0).all()
    direction, found = normal(2, 8, seed=7), []
    with torch.no_grad():
        for step in (1e-6, -1e-6):
            with scene.drawing(ID_EMBEDS + step * direction):
                found.append(loss().sum())
    expected = (found[0] - found[1]) / 2e-6
    torch.testing.assert_close((id_embeds.grad * direction).sum(), expected, rtol=1e-5, atol=1e-9)


def test_a_branch_of_identity_tokens_cannot_be_localised() -> None:
    """Attention to identity tokens alone sums to one everywhere: inside and outside cancel, whatever it does."""
    scores = normal(2, 16, 4, seed=9).softmax(-1)
    inside = face_mask().flatten(2).mT
    outside = 1 - inside
    gap = (scores * outside).sum(1) / outside.sum(1) - (scores * inside).sum(1) / inside.sum(1)
    assert gap.abs().min() > 1e-3
    torch.testing.assert_close(gap.sum(1), torch.zeros(2).double(), atol=1e-12, rtol=0)


@pytest.mark.parametrize("size", [(8, 8), (9, 13), (6, 10)])
def test_masks_at_the_levels_of_a_unet(size: tuple[int, int]) -> None:
    mask = torch.rand(2, 3, *size)
    height, width = size
    while height * width > 4:
        down = masks_at(mask, height * width)
        assert down.shape == (2, 3, height * width)
        assert 0 <= down.min() <= down.max() <= 1
        height, width = -(-height // 2), -(-width // 2)
    torch.testing.assert_close(masks_at(mask, size[0] * size[1]), mask.flatten(2))
    assert torch.equal(masks_at(torch.ones(1, 1, *size), height * width), torch.ones(1, 1, height * width))
    with pytest.raises(LossError, match="resolution of the latent"):
        masks_at(mask, 7)
    with pytest.raises(LossError, match="resolution of the latent"):
        masks_at(mask, 10_000)
