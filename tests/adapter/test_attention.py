"""The identity branch equals decoupled cross-attention, also with other changes of the layers."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from peft import LoraConfig

from idgen.adapter import IdentityAdapter, ScaleSchedule
from idgen.errors import AdapterError, BaseMismatchError
from tests.components import TO_COMPILE, make_adapter, make_unet, seeded

from .decoupled import decoupled, tokens_of


def unet_inputs(unet: Any, batch: int = 4, timestep: int = 500, side: int = 16) -> dict[str, Any]:
    dim = unet.config.cross_attention_dim
    inputs: dict[str, Any] = {
        "sample": torch.randn(batch, 4, side, side, generator=seeded(1)).to(unet.dtype),
        "timestep": torch.tensor(timestep),
        "encoder_hidden_states": torch.randn(batch, 5, dim, generator=seeded(2)).to(unet.dtype),
    }
    if unet.config.addition_embed_type:
        embeds = torch.randn(batch, 16, generator=seeded(3)).to(unet.dtype)
        inputs["added_cond_kwargs"] = {"text_embeds": embeds, "time_ids": torch.zeros(batch, 6)}
    return inputs


def random_tokens(adapter: IdentityAdapter, rows: int = 1, seed: int = 3):
    return adapter.encode(torch.randn(rows, 8, generator=seeded(seed)).to(adapter.dtype))


def add_lora(unet: Any) -> None:
    unet.add_adapter(LoraConfig(r=2, target_modules=["to_q", "to_out.0"], init_lora_weights=False))


def load_image_prompt(unet: Any) -> None:
    """A stock IP-Adapter of random weights, through diffusers' own loader."""
    torch.manual_seed(8)
    dim = unet.config.cross_attention_dim
    projection = {"proj.weight": (4 * dim, 6), "proj.bias": (4 * dim,), "norm.weight": (dim,), "norm.bias": (dim,)}
    layers = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    weights = {
        f"{2 * i + 1}.to_{kind}_ip.weight": torch.randn(unet.get_submodule(name[:-10]).inner_dim, dim) * 0.5
        for i, name in enumerate(layers)
        for kind in "kv"
    }
    image_proj = {name: torch.randn(shape) for name, shape in projection.items()}
    unet._load_ip_adapter_weights([{"image_proj": image_proj, "ip_adapter": weights}])


CHANGES_BEFORE = {"plain": lambda unet: None, "lora_before": add_lora, "image_prompt_before": load_image_prompt}
CHANGES_AFTER = {
    "lora_after": add_lora,
    "image_prompt_after": load_image_prompt,
    "sliced": lambda unet: unet.set_attention_slice(1),
    "fused_qkv": lambda unet: unet.fuse_qkv_projections(),
    "lora_fused": lambda unet: (add_lora(unet), unet.fuse_lora()),
    "lora_deleted": lambda unet: (add_lora(unet), unet.delete_adapters("default")),
}


@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize("change", [*CHANGES_BEFORE, *CHANGES_AFTER])
@torch.no_grad()
def test_branch_is_decoupled_attention(family: str, change: str) -> None:
    unet = make_unet(family)
    adapter = make_adapter(unet)
    CHANGES_BEFORE.get(change, lambda _: None)(unet)
    adapter.attach(unet)
    CHANGES_AFTER.get(change, lambda _: None)(unet)
    inputs = unet_inputs(unet)
    if "image_prompt" in change:
        embeds = torch.randn(4, 1, 6, generator=seeded(9))
        inputs["added_cond_kwargs"] = {**inputs.get("added_cond_kwargs", {}), "image_embeds": [embeds]}
    person = random_tokens(adapter)

    before = unet(**inputs).sample
    adapter.scale = 0.7
    with adapter.activate([person], num_images=2):
        found = unet(**inputs).sample
    after = unet(**inputs).sample
    with decoupled(unet, adapter, [tokens_of(person, 2, 2)], scale=0.7):
        expected = unet(**inputs).sample

    assert torch.equal(before, after)
    assert (expected - before).abs().max() > 0.01
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def test_bfloat16_is_exact_to_its_precision() -> None:
    """Not farther from float32 than decoupled attention in bfloat16 itself is."""
    pictures = {}
    for dtype in (torch.float32, torch.bfloat16):
        torch.manual_seed(0)
        unet = make_unet("sdxl").to(dtype)  # pyright: ignore
        adapter = make_adapter(unet).to(dtype)  # pyright: ignore
        adapter.attach(unet)
        person = random_tokens(adapter)
        with adapter.activate([person], num_images=2):
            pictures["hooks", dtype] = unet(**unet_inputs(unet)).sample.float()
        with decoupled(unet, adapter, [tokens_of(person, 2, 2)]):
            pictures["plain", dtype] = unet(**unet_inputs(unet)).sample.float()
    exact = pictures["hooks", torch.float32]
    ours, plain = ((pictures[way, torch.bfloat16] - exact).abs().mean() for way in ("hooks", "plain"))
    assert ours < 1.2 * plain


@torch.no_grad()
def test_regions() -> None:
    unet = make_unet()
    adapter = make_adapter(unet)
    adapter.attach(unet)
    one, two = random_tokens(adapter, seed=1), random_tokens(adapter, seed=2)
    left = torch.zeros(16, 16)
    left[:, :8] = 1
    with adapter.activate([one, two], num_images=2, masks=[left, 1 - left]):
        found = unet(**unet_inputs(unet)).sample
    with decoupled(unet, adapter, [tokens_of(one, 2, 2), tokens_of(two, 2, 2)]) as layers:
        for path, layer in layers.items():
            side = 16 if path.startswith(("down_blocks.0", "up_blocks.1")) else 8
            mask = torch.nn.functional.interpolate(left[None, None], (side, side)).flatten()[:, None]
            layer.processor.masks = [mask, 1 - mask]  # pyright: ignore
        expected = unet(**unet_inputs(unet)).sample
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("side", [8, 12, 18])
@torch.no_grad()
def test_regions_of_every_picture_size(side: int) -> None:
    levels = {
        "block_out_channels": (16,) * 4,
        "attention_head_dim": 2,
        "down_block_types": ("CrossAttnDownBlock2D",) * 4,
        "up_block_types": ("CrossAttnUpBlock2D",) * 4,
    }
    unet = make_unet(**levels)
    adapter = make_adapter(unet)
    adapter.attach(unet)
    person = random_tokens(adapter)
    with adapter.activate([person], num_images=1):
        everywhere = unet(**unet_inputs(unet, batch=2, side=side)).sample
    with adapter.activate([person], num_images=1, masks=[torch.ones(30, 20)]):
        masked = unet(**unet_inputs(unet, batch=2, side=side)).sample
    torch.testing.assert_close(masked, everywhere, atol=1e-6, rtol=0)


@torch.no_grad()
def test_scale_zero_is_no_identity_and_blocks_are_separate() -> None:
    unet = make_unet()
    adapter = make_adapter(unet)
    adapter.attach(unet)
    person, inputs = random_tokens(adapter), unet_inputs(unet)
    before = unet(**inputs).sample

    def draw(scale: Any) -> torch.Tensor:
        adapter.scale = scale
        with adapter.activate([person], num_images=2):
            return unet(**inputs).sample

    assert torch.equal(draw(0), before)
    assert torch.equal(draw({"down": 1.0, "mid": 1.0, "up": 1.0}), draw(1.0))
    assert not torch.equal(draw({"down": 1.0}), draw({"up": 1.0}))
    with pytest.raises(AdapterError, match=r"up_blocks\.7"):
        adapter.scale = {"up_blocks.7": 1.0}
    with pytest.raises(AdapterError, match="number"):
        adapter.scale = "strong"  # pyright: ignore


@torch.no_grad()
def test_schedule_reads_the_timestep() -> None:
    unet = make_unet()
    adapter = make_adapter(unet)
    adapter.attach(unet)
    person = random_tokens(adapter)

    def draw(scale: Any, timestep: int) -> torch.Tensor:
        adapter.scale = scale
        with adapter.activate([person], num_images=2):
            return unet(**unet_inputs(unet, timestep=timestep)).sample

    late = ScaleSchedule(scale=0.5, start=0.4, end=0.8)
    assert torch.equal(draw(late, 900), draw(0, 900))
    assert torch.equal(draw(late, 500), draw(0.5, 500))
    assert torch.equal(draw(late, 100), draw(0, 100))
    rising = ScaleSchedule(scale={"up": 2.0}, function=lambda progress: progress)
    assert torch.equal(draw(rising, 750), draw({"up": 0.5}, 750))
    with pytest.raises(ValueError, match="start"):
        ScaleSchedule(start=0.9, end=0.1)


@torch.no_grad()
@pytest.mark.parametrize("way", ["in place", "wrapped"])
def test_compiled_unet(way: str) -> None:
    """An adapter is attached before compilation, and again afterwards; or afterwards only."""
    torch.compiler.reset()
    unet: Any = make_unet(**TO_COMPILE)
    adapter = make_adapter(unet)
    inputs = unet_inputs(unet)
    neutral = unet(**inputs).sample
    if way == "in place":
        adapter.attach(unet)
        unet.compile(backend="eager", fullgraph=True)
    else:
        unet = torch.compile(unet, backend="eager", fullgraph=True)
    torch.testing.assert_close(unet(**inputs).sample, neutral, atol=1e-6, rtol=0)
    if way == "wrapped":
        adapter.attach(unet)
    for scale, seed in ((0.7, 1), (0.7, 2), (0.2, 2)):
        person = random_tokens(adapter, seed=seed)
        adapter.scale = scale
        with adapter.activate([person], num_images=2):
            found = unet(**inputs).sample
        plain = make_unet(**TO_COMPILE)
        with decoupled(plain, adapter, [tokens_of(person, 2, 2)], scale):
            expected = plain(**inputs).sample
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)
    torch.testing.assert_close(unet(**inputs).sample, neutral, atol=1e-6, rtol=0)
    adapter.detach()
    torch.testing.assert_close(unet(**inputs).sample, neutral, atol=1e-6, rtol=0)
    if way == "in place":
        adapter.attach(unet)
        with adapter.activate([person], num_images=2):
            torch.testing.assert_close(unet(**inputs).sample, found, atol=1e-6, rtol=0)


@pytest.mark.parametrize("training", [True, False])
def test_gradient_checkpointing_gives_the_same_gradients(training: bool) -> None:
    def gradients(checkpointing: bool) -> list[torch.Tensor]:
        unet = make_unet()
        adapter = make_adapter(unet).train()
        adapter.attach(unet)
        if checkpointing:
            unet.enable_gradient_checkpointing()  # diffusers' blocks recompute in both modes
            unet.train(training)
        with adapter.activate([random_tokens(adapter, rows=2)], num_images=2):
            unet(**unet_inputs(unet, batch=2)).sample.square().mean().backward()
        return [p.grad for p in adapter.parameters() if p.grad is not None]

    plain, checkpointed = gradients(False), gradients(True)
    assert len(plain) == len(list(make_adapter(make_unet()).parameters()))
    for a, b in zip(plain, checkpointed, strict=True):
        assert a.abs().sum() > 0
        torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-5)


def test_forwards_of_several_batch_sizes_share_a_backward_pass() -> None:
    """As in reward training, where steps with guidance and the denoising of photos are in one loss."""

    def gradients(checkpointing: bool) -> list[torch.Tensor]:
        unet = make_unet()
        adapter = make_adapter(unet).train()
        adapter.attach(unet)
        if checkpointing:
            unet.enable_gradient_checkpointing()
            unet.train()
        with adapter.activate([random_tokens(adapter, rows=2)], num_images=2):
            losses = [unet(**unet_inputs(unet, batch=batch)).sample.square().mean() for batch in (4, 2, 4)]
            torch.stack(losses).sum().backward()
        return [p.grad for p in adapter.parameters() if p.grad is not None]

    for plain, checkpointed in zip(gradients(False), gradients(True), strict=True):
        torch.testing.assert_close(plain, checkpointed, atol=1e-7, rtol=1e-5)


def test_detach_leaves_no_trace() -> None:
    unet = make_unet()
    names = set(unet.state_dict())
    adapter = make_adapter(unet)
    adapter.attach(unet)
    assert set(unet.state_dict()) == names
    assert "unet" not in "".join(adapter.state_dict())
    adapter.detach()
    adapter.detach()
    for module in unet.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


def test_misuse_raises_errors() -> None:
    unet = make_unet()
    adapter = make_adapter(unet)
    person = random_tokens(adapter)
    with pytest.raises(AdapterError, match="not attached"), adapter.activate([person], 1):
        pass
    with pytest.raises(BaseMismatchError, match=r"width 16.*width 32"):
        adapter.attach(make_unet("sdxl"))
    adapter.attach(unet)
    with pytest.raises(AdapterError, match="already attached"):
        adapter.attach(unet)
    with pytest.raises(AdapterError, match="one mask per person"), adapter.activate([person, person], 1):
        pass
    with adapter.activate([person], 1):
        with pytest.raises(AdapterError, match="batch of 4"):
            unet(**unet_inputs(unet, batch=4))
        with pytest.raises(AdapterError, match="while a call is using"):
            adapter.detach()
    with pytest.raises(AdapterError, match="3 identities"), adapter.activate([random_tokens(adapter, rows=3)], 4):
        pass


def test_standardise_input() -> None:
    """The adapter then reads embeddings as it read standardised embeddings before."""
    torch.manual_seed(0)
    adapter, plain = (make_adapter(make_unet(), seed=3) for _ in range(2))
    embeddings = 5 + 0.01 * torch.randn(500, 8, generator=seeded(1))
    adapter.to_tokens.standardise_input(embeddings)  # pyright: ignore[reportCallIssue]
    standard = (embeddings - embeddings.mean(0)) / embeddings.std(0)
    torch.testing.assert_close(adapter(embeddings[:4]), plain(standard[:4]), atol=1e-3, rtol=1e-3)


def test_standardise_input_of_one_person_changes_nothing() -> None:
    adapter, plain = (make_adapter(make_unet(), seed=3) for _ in range(2))
    adapter.to_tokens.standardise_input(torch.ones(1, 8))  # pyright: ignore[reportCallIssue]
    assert torch.equal(adapter(torch.ones(1, 8)), plain(torch.ones(1, 8)))


def test_repr_is_short() -> None:
    adapter = make_adapter(make_unet("sdxl"))
    assert repr(adapter).startswith("IdentityAdapter(encoder='test'")
    assert len(repr(adapter)) < 150
