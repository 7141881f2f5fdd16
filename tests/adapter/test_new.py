"""A new adapter changes no bit of the UNet's output, and its first updates reach all weights."""

from __future__ import annotations

from itertools import product
from typing import Any

import pytest
import torch
from torch import nn

from idgen.adapter import IdentityAdapter
from idgen.adapter.layers import module_key
from tests.components import make_adapter, make_unet, seeded

from .test_attention import CHANGES_AFTER, CHANGES_BEFORE, add_lora, random_tokens, unet_inputs

PLACEMENTS: dict[str, dict[str, Any]] = {
    "parallel": {},
    "orthogonal": {"ortho": "ortho_v2", "num_zero": 2},
    "sequential": {"placement": "sequential"},
}


def new(unet: nn.Module, **config: Any) -> IdentityAdapter:
    """An adapter as training starts with it."""
    torch.manual_seed(0)
    return IdentityAdapter.from_unet(unet, encoder="test", embedding_dim=8, **config).eval()


@pytest.mark.parametrize("family", ["sd", "sdxl"])
@pytest.mark.parametrize(
    ("placement", "change"),
    [*product(PLACEMENTS, ["plain"]), *product(["sequential"], [*CHANGES_BEFORE, *CHANGES_AFTER][1:])],
)
@torch.no_grad()
def test_a_new_adapter_changes_no_bit(placement: str, family: str, change: str) -> None:
    """Nor does it beside another adapter, with a LoRA of its own, or with several people."""
    unet = make_unet(family)
    adapter = new(unet, lora_rank=2, **PLACEMENTS[placement])
    CHANGES_BEFORE.get(change, lambda _: None)(unet)
    adapter.attach(unet)
    CHANGES_AFTER.get(change, lambda _: None)(unet)
    other = make_adapter(unet)
    other.attach(unet)
    inputs = unet_inputs(unet)
    if "image_prompt" in change:
        embeds = torch.randn(4, 1, 6, generator=seeded(9))
        inputs["added_cond_kwargs"] = {**inputs.get("added_cond_kwargs", {}), "image_embeds": [embeds]}
    people = [random_tokens(adapter, seed=1), random_tokens(adapter, seed=2)]
    with other.activate([random_tokens(other)], num_images=2):
        before = unet(**inputs).sample
        for scale in (1.0, 3.0, {"up": 1.0}):
            adapter.scale = scale
            with adapter.activate(people, num_images=2, masks=[torch.ones(4, 4), torch.rand(4, 4)]):
                assert torch.equal(unet(**inputs).sample, before)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_the_first_update_reaches_what_is_zero_and_the_second_all_weights(placement: str) -> None:
    zero = "alpha" if placement == "sequential" else "to_v"
    unet = make_unet().requires_grad_(False)
    adapter = new(unet, **PLACEMENTS[placement])
    adapter.attach(unet)
    inputs = unet_inputs(unet, batch=2)
    names = {name for name, _ in adapter.named_parameters()}
    for expected in ({name for name in names if zero in name}, names):
        with adapter.activate([adapter.encode(torch.randn(2, 8, generator=seeded(4)))], num_images=2):
            adapter.zero_grad()
            unet(**inputs).sample.square().mean().backward()
        assert {n for n, p in adapter.named_parameters() if p.grad is not None and p.grad.abs().max() > 0} == expected
        with torch.no_grad():
            for name, weight in adapter.named_parameters():
                weight.add_(0.1 * torch.randn(weight.shape, generator=seeded(5)) if zero in name else 0)


def test_keys_are_those_of_the_unet() -> None:
    unet = make_unet()
    add_lora(unet)
    adapter = new(unet)
    path = "mid_block.attentions.0.transformer_blocks.0.attn2"
    assert adapter.config["layers"][path] == 32
    key: Any = adapter.branches[module_key(path)]
    assert torch.equal(key.to_k.weight, unet.get_submodule(path).to_k.weight)  # pyright: ignore
