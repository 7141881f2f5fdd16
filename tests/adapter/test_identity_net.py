"""IdentityNet in stock ControlNet pipelines, against a plain ControlNet that is handed the tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import diffusers
import pytest
import torch
from diffusers import ControlNetModel
from diffusers.models.controlnets.multicontrolnet import MultiControlNetModel

from idgen import Identity, IdentityNet
from idgen.adapter import IdentityTokens, cross_attention_layers
from idgen.errors import AdapterError
from tests.components import SIDE, call_arguments, make_adapter, make_controlnet, make_pipeline, seeded


class Handed(ControlNetModel):
    """A plain ControlNet that reads given tokens, nobody's first, whatever it is called with."""

    tokens: torch.Tensor
    every: int = 1
    calls: int = 0
    kept: Any = None

    def forward(self, sample, timestep, encoder_hidden_states, controlnet_cond, conditioning_scale=1.0, **kwargs):  # pyright: ignore
        if self.calls % self.every == 0:
            nobody, somebody = self.tokens.repeat_interleave(self.pictures, 0).split(self.pictures)
            tokens = somebody if len(sample) == self.pictures else torch.cat([nobody, somebody])
            self.kept = super().forward(sample, timestep, tokens, controlnet_cond, 1.0, **kwargs)
        self.calls += 1
        down, mid = self.kept
        return [residual * conditioning_scale for residual in down], mid * conditioning_scale

    pictures = 1


def make_net(unet: Any, kind: type = IdentityNet) -> Any:
    """Random and not zero, as before training."""
    net = kind.from_config(make_controlnet(unet).config)
    net.load_state_dict(make_controlnet(unet).state_dict())
    return net.eval()


def person_of(pipe: Any, seed: int = 1) -> tuple[Identity, torch.Tensor]:
    """Somebody, and the adapter's tokens of nobody and of them, (2, tokens, dim)."""
    who = Identity(embeddings=torch.randn(1, 8, generator=seeded(seed)), encoder="test")
    person = pipe.id_adapters["default"].encode(who.embedding()[None])
    return who, torch.cat([person.negative_tokens, person.tokens]).detach()


def pair(family: str, task: str = "txt2img", extra: bool = False) -> tuple[Any, Any, Identity]:
    """A pipeline with an IdentityNet, one with a ControlNet that is handed the same tokens, and a person."""
    pipes = []
    for kind in (IdentityNet, Handed):
        pipe = make_pipeline(family, task, controlnet=True)
        net = make_net(pipe.unet, kind)
        pipe.register_modules(controlnet=MultiControlNetModel([net, pipe.controlnet]) if extra else net)
        pipes.append(pipe)
    ours, stock = pipes
    ours.load_id_adapter(make_adapter(ours.unet))
    who, tokens = person_of(ours)
    (stock.controlnet.nets[0] if extra else stock.controlnet).tokens = tokens
    return ours, stock, who


@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize("task", ["txt2img", "img2img", "inpaint"])
@pytest.mark.parametrize("extra", [False, True], ids=["alone", "among others"])
def test_reads_tokens_and_others_text(family: str, task: str, extra: bool) -> None:
    ours, stock, who = pair(family, task, extra)
    call = call_arguments(task, controlnet=True)
    if extra:
        name = "image" if task == "txt2img" else "control_image"
        call |= {name: [call[name]] * 2, "controlnet_conditioning_scale": [0.8, 0.5]}
    expected = stock(**call).images
    call["generator"] = seeded(6)
    found = ours(**call, id_embeds=who, id_scale=0.0).images
    assert abs(found - expected).max() <= 1e-6


@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize(
    "changes",
    [
        {"guess_mode": True},
        {"guidance_scale": 1.0},
        {"control_guidance_start": 0.3, "control_guidance_end": 0.7},
        {"controlnet_conditioning_scale": 0.4},
        {"num_images_per_prompt": 2},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_ways_of_calling(family: str, changes: dict[str, Any]) -> None:
    ours, stock, who = pair(family)
    stock.controlnet.pictures = changes.get("num_images_per_prompt", 1)
    expected = stock(**call_arguments(controlnet=True, **changes)).images
    found = ours(**call_arguments(controlnet=True, **changes), id_embeds=who, id_scale=0.0).images
    assert abs(found - expected).max() <= 1e-6


@pytest.mark.parametrize("interval", [1, 3])
@pytest.mark.parametrize("extra", [False, True], ids=["alone", "among others"])
def test_control_interval(interval: int, extra: bool) -> None:
    ours, stock, who = pair("sd", extra=extra)
    (stock.controlnet.nets[0] if extra else stock.controlnet).every = interval
    call = {"num_inference_steps": 5, "controlnet_conditioning_scale": [0.7, 0.7] if extra else 0.7}
    if extra:
        call["image"] = [call_arguments(controlnet=True)["image"]] * 2
    expected = stock(**call_arguments(controlnet=True, **call)).images
    found = ours(
        **call_arguments(controlnet=True, **call), id_embeds=who, id_scale=0.0, control_interval=interval
    ).images
    assert abs(found - expected).max() <= 1e-6
    every_step = ours(**call_arguments(controlnet=True, **call), id_embeds=who, id_scale=0.0).images
    assert (abs(found - every_step).max() > 1e-4) == (interval > 1)


def test_next_call_starts_anew() -> None:
    ours, _, who = pair("sd")
    call = {"id_embeds": who, "control_interval": 3, "num_inference_steps": 2}
    first = ours(**call_arguments(controlnet=True, **call)).images
    assert (ours(**call_arguments(controlnet=True, **call)).images == first).all()


def layer_output(net: IdentityNet, persons: list[IdentityTokens], masks: list[torch.Tensor] | None) -> torch.Tensor:
    """What the net's first cross-attention layer gives out, (1, 16, 16, width)."""
    seen: list[torch.Tensor] = []
    layer = next(iter(cross_attention_layers(net).values()))
    sample, picture = torch.randn(1, 4, 16, 16, generator=seeded(3)), torch.rand(1, 3, SIDE, SIDE, generator=seeded(4))
    with net.activate(persons, 1, masks=masks), torch.no_grad():
        handle = layer.register_forward_hook(lambda *call: seen.append(call[-1]))
        net(sample, 10, torch.empty(0), picture, return_dict=False)
        handle.remove()
    return seen[0].unflatten(1, (16, 16))


def test_people_are_read_where_they_may_appear() -> None:
    pipe = make_pipeline(controlnet=True)
    net, adapter = make_net(pipe.unet), make_adapter(pipe.unet)
    a, b = (adapter.encode(torch.randn(1, 8, generator=seeded(i))) for i in (1, 2))
    nobody = IdentityTokens(a.negative_tokens, a.negative_tokens)
    left, right = torch.zeros(2, SIDE, SIDE).unbind()
    left[:, : SIDE // 4] = 1
    right[:, SIDE // 2 :] = 1
    found = layer_output(net, [a, b], [left, right])
    alone = {name: layer_output(net, [who], None) for name, who in (("a", a), ("b", b), ("nobody", nobody))}
    torch.testing.assert_close(found[:, :, :4], alone["a"][:, :, :4], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found[:, :, 8:], alone["b"][:, :, 8:], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found[:, :, 4:8], alone["nobody"][:, :, 4:8], atol=1e-6, rtol=1e-5)
    assert (alone["a"] - alone["b"]).abs().max() > 1e-3
    shared = layer_output(net, [a, b], [torch.ones(SIDE, SIDE)] * 2)
    torch.testing.assert_close(shared, (alone["a"] + alone["b"]) / 2, atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_two_people_in_a_picture(family: str) -> None:
    pipe = make_pipeline(family, controlnet=True)
    pipe.register_modules(controlnet=make_net(pipe.unet))
    pipe.load_id_adapter(make_adapter(pipe.unet))
    people = [person_of(pipe, seed)[0] for seed in (1, 2)]
    masks = torch.zeros(2, SIDE, SIDE)
    masks[0, :, : SIDE // 2] = masks[1, :, SIDE // 2 :] = 1
    both = pipe(**call_arguments(controlnet=True), id_embeds=people, id_masks=[*masks]).images
    swapped = pipe(**call_arguments(controlnet=True), id_embeds=people[::-1], id_masks=[*masks]).images
    again = pipe(**call_arguments(controlnet=True), id_embeds=people[::-1], id_masks=[*masks.flip(0)]).images
    assert abs(both - swapped).max() > 1e-3
    assert abs(both - again).max() <= 1e-5
    assert not any(layer._forward_hooks for layer in cross_attention_layers(pipe.controlnet).values())


def test_starts_without_effect_from_any_unet() -> None:
    pipe = make_pipeline(controlnet=True)
    plain = make_pipeline()
    net = IdentityNet.from_unet(pipe.unet, conditioning_embedding_out_channels=(8, 8))
    assert isinstance(net, IdentityNet)
    pipe.register_modules(controlnet=net)
    adapter = make_adapter(pipe.unet)
    pipe.load_id_adapter(adapter)
    who, _ = person_of(pipe)
    found = pipe(**call_arguments(controlnet=True), id_embeds=who, id_scale=0.0).images
    assert abs(found - plain(**call_arguments()).images).max() <= 1e-6


def test_text_is_never_taken_for_a_person() -> None:
    ours, _, who = pair("sd")
    with pytest.raises(AdapterError, match="not text"):
        ours(**call_arguments(controlnet=True))
    with pytest.raises(AdapterError, match="control_interval must be an integer >= 1"):
        ours(**call_arguments(controlnet=True), id_embeds=who, control_interval=0)
    assert ours(**call_arguments(controlnet=True), id_embeds=who).images is not None
    plain = make_pipeline()
    plain.load_id_adapter(make_adapter(plain.unet))
    with pytest.raises(AdapterError, match="has none"):
        plain(**call_arguments(), id_embeds=who, control_interval=2)
    wide = make_adapter(make_pipeline("sdxl").unet).encode(torch.ones(1, 8))
    with pytest.raises(AdapterError, match="width 16"), ours.controlnet.activate([wide], 1):
        pass


def test_a_pipeline_with_one_is_saved_and_opened(tmp_path: Path) -> None:
    ours, _, who = pair("sd")
    expected = ours(**call_arguments(controlnet=True), id_embeds=who).images
    adapter = ours.id_adapters["default"]
    ours.unload_id_adapter()
    ours.save_pretrained(tmp_path)
    again: Any = diffusers.StableDiffusionControlNetPipeline.from_pretrained(tmp_path)
    again.set_progress_bar_config(disable=True)
    assert isinstance(again.controlnet, IdentityNet)
    again.load_id_adapter(adapter)  # pyright: ignore[reportAttributeAccessIssue]
    assert (again(**call_arguments(controlnet=True), id_embeds=who).images == expected).all()


def test_gradients_reach_the_net_and_the_tokens() -> None:
    pipe = make_pipeline()
    net, adapter = make_net(pipe.unet).train(), make_adapter(pipe.unet)
    net.enable_gradient_checkpointing()
    person = adapter.encode(torch.randn(2, 8, generator=seeded(1)))
    sample, picture = torch.randn(2, 4, 16, 16, generator=seeded(3)), torch.rand(2, 3, SIDE, SIDE, generator=seeded(4))
    with net.activate([person], 2):
        down, mid = net(sample, torch.tensor([10, 500]), torch.empty(0), picture, return_dict=False)
    (mid.square().mean() + sum(residual.square().mean() for residual in down)).backward()
    assert all(weight.grad is not None for weight in net.parameters() if weight.requires_grad)
    assert all(weight.grad is not None for weight in adapter.to_tokens.parameters())
