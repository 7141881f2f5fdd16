"""A VAE whose configuration says that it overflows in float16 computes in float32, in encoding and decoding."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from idgen.data.makers import encode_images
from idgen.losses import FaceDecoder
from idgen.training.base import BaseModel
from tests.components import SIDE, make_pipeline, seeded

LATENTS = torch.randn(2, 4, SIDE // 2, SIDE // 2, generator=seeded(1))
BOXES = torch.tensor([[4.0, 4, 20, 20], [8, 8, 28, 28]])
PICTURES = np.random.default_rng(2).integers(0, 256, (2, SIDE, SIDE, 3), np.uint8)


def overflowing(dtype: torch.dtype, force_upcast: bool) -> BaseModel:
    """A base whose VAE has activations, but no weights, beyond the range of float16."""
    pipeline = make_pipeline("sdxl")
    pipeline.vae.register_to_config(force_upcast=force_upcast)
    for part in (pipeline.vae.encoder, pipeline.vae.decoder):
        part.conv_in.weight.data *= 6e4 / part.conv_in.weight.abs().max()
    return BaseModel(pipeline, dtype, torch.device("cpu"))


def compute(base: BaseModel) -> dict[str, torch.Tensor]:
    """Everything a run computes with a VAE, under the autocast of fp16."""
    latents, decoder = LATENTS.clone().requires_grad_(True), FaceDecoder(vae=base.pipeline.vae, checkpointing=True)
    with torch.autocast("cpu", torch.float16):
        pictures = base.decode(LATENTS)
        whole = decoder.whole(LATENTS)
        crops = decoder(latents, BOXES).images
    crops.float().square().sum().backward()
    made: dict[str, Any] = {"pictures": pictures, "whole": whole.images, "crops": crops, "gradient": latents.grad}
    return {**made, "latents": encode_images(base.pipeline.vae, PICTURES)}


@pytest.mark.filterwarnings("ignore:overflow")
def test_results_are_those_of_float32() -> None:
    upcast = overflowing(torch.float16, force_upcast=True)
    assert upcast.unet.dtype == torch.float16
    expected = compute(overflowing(torch.float32, force_upcast=False))
    for name, found in compute(upcast).items():
        torch.testing.assert_close(found, expected[name], rtol=1e-4, atol=1e-4, msg=name)
    unsaid = compute(overflowing(torch.float16, force_upcast=False))
    assert all(not part.isfinite().all() for part in unsaid.values())  # so it does overflow


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_other_precisions_are_not_changed(dtype: torch.dtype) -> None:
    base = overflowing(dtype, force_upcast=True)
    assert base.pipeline.vae.dtype == base.unet.dtype == dtype
