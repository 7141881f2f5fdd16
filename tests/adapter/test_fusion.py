"""Text and identity weighed against each other, as PhotoVerse does at random in training."""

from __future__ import annotations

import pytest
import torch

from idgen.adapter import Fusion, RandomFusion
from tests.components import TEXT_DIM, make_adapter, make_unet, seeded


def test_random_fusion_has_three_cases_of_equal_chance() -> None:
    text, identity = RandomFusion().draw(30_000, seeded(1))
    assert torch.equal(text + identity, torch.full((30_000,), 2.0))
    for value in (0.0, 1.0, 2.0):
        assert abs(float((identity == value).float().mean()) - 1 / 3) < 0.01
    assert torch.equal(RandomFusion().draw(5, seeded(2)).text, RandomFusion().draw(5, seeded(2)).text)
    with pytest.raises(ValueError, match="text_only"):
        RandomFusion(text_only=0.7, identity_only=0.6)


def test_each_picture_has_factors_of_its_own() -> None:
    """γ·text + σ·identity: what enters the layer's output map, in the layer that is reached first."""
    unet = make_unet()
    adapter = make_adapter(unet)
    adapter.attach(unet)
    person = adapter.encode(torch.randn(3, 8, generator=seeded(1)))
    sample = torch.randn(3, 4, 16, 16, generator=seeded(2))
    text = torch.randn(3, 7, TEXT_DIM, generator=seeded(3))
    layer = unet.down_blocks[0].attentions[0].transformer_blocks[0].attn2  # pyright: ignore
    seen: list[torch.Tensor] = []
    layer.to_out[0].register_forward_hook(lambda module, args, _: seen.append(args[0]))

    def enters(scale: float, fusion: Fusion | None = None) -> torch.Tensor:
        seen.clear()
        adapter.scale = scale
        with adapter.activate([person], 3, fusion=fusion), torch.no_grad():
            unet(sample, 10, text)
        return seen[0]

    only_text, both = enters(0.0), enters(1.0)
    gamma, sigma = torch.tensor([2.0, 1.0, 0.0]), torch.tensor([0.0, 1.0, 2.0])
    expected = gamma[:, None, None] * only_text + sigma[:, None, None] * (both - only_text)
    torch.testing.assert_close(enters(1.0, Fusion(gamma, sigma)), expected, atol=1e-5, rtol=1e-5)
    assert torch.equal(enters(1.0), both)


def test_values_are_what_the_layers_read() -> None:
    adapter = make_adapter(make_unet())
    tokens = adapter(torch.randn(2, 8, generator=seeded(4)))
    values = list(adapter.values(tokens))
    assert len(values) == len(adapter.branches)
    assert all(v.shape[:2] == tokens.shape[:2] for v in values)
