"""Inpainting for bases with any number of latent channels."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from idgen import load_tiny
from idgen.pipelines import LatentInpaintPipeline
from tests.components import SIDE, call_arguments, make_adapter, make_pipeline, seeded

from .kinds import ANNA


def test_what_is_not_painted_stays_and_what_is_painted_shows_the_person() -> None:
    source = make_pipeline()
    source.load_id_adapter(make_adapter(source.unet))
    pipeline: Any = LatentInpaintPipeline.from_pipe(source, dtype=torch.float32)
    pipeline.set_progress_bar_config(disable=True)
    arguments = call_arguments("img2img") | {"strength": 1.0, "output_type": "latent"}
    left = Image.new("L", (SIDE, SIDE))
    left.paste(255, (0, 0, SIDE // 2, SIDE))

    def inpaint(mask: Any, **ours: Any) -> np.ndarray:
        return pipeline(**arguments | {"generator": seeded(6)}, mask_image=mask, **ours).images.numpy()

    anna, nobody = inpaint(left, id_embeds=ANNA), inpaint(left)
    nothing = inpaint(Image.new("L", (SIDE, SIDE)))
    half = anna.shape[-1] // 2
    np.testing.assert_allclose(anna[..., half:], nothing[..., half:], atol=1e-6)
    assert np.abs(anna - nobody)[..., :half].max() > 0.01
    assert np.abs(anna - nothing)[..., :half].max() > 0.01
    with pytest.raises(ValueError, match="mask_image is required"):
        pipeline(**arguments)


def test_the_packaged_model_inpaints(astronaut: np.ndarray) -> None:
    pipeline: Any = load_tiny(inpaint=True)
    pipeline.set_progress_bar_config(disable=True)
    side = pipeline.unet.config.sample_size * pipeline.vae_scale_factor
    face = Image.fromarray(astronaut[20:200, 130:310]).resize((side, side))
    mask = Image.new("L", (side, side))
    mask.paste(255, (side // 4, side // 4, 3 * side // 4, 3 * side // 4))
    drawn = np.asarray(
        pipeline("a photo of a face", face, mask, num_inference_steps=4, generator=seeded(1)).images[0], np.float32
    )
    corner = np.abs(drawn - np.asarray(face, np.float32))[: side // 5, : side // 5]
    assert corner.mean() < 20, "the autoencoder alone changes what is not painted"
