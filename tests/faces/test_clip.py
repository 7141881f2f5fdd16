"""CLIP features for FaceID-Plus adapters, and such an adapter in a pipeline."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import CLIPVisionConfig, CLIPVisionModelWithProjection

from idgen import IdentityAdapter
from idgen.errors import AdapterError, CheckpointError, IdentityError
from idgen.faces import ClipFeatures, DlibEncoder, FaceAnalyzer
from tests.components import SMALL_PROJECTIONS, call_arguments, make_adapter, make_pipeline


@pytest.fixture(scope="module")
def encoder() -> CLIPVisionModelWithProjection:
    torch.manual_seed(0)
    config = CLIPVisionConfig(
        hidden_size=16, intermediate_size=16, num_hidden_layers=3, num_attention_heads=2, image_size=32, patch_size=8
    )
    return CLIPVisionModelWithProjection(config)


def test_features_are_those_of_the_last_but_one_layer(encoder: CLIPVisionModelWithProjection) -> None:
    from transformers import CLIPImageProcessorPil

    crops = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    processor = CLIPImageProcessorPil(do_resize=False, do_center_crop=False)
    pixels = processor(list(crops), return_tensors="pt")["pixel_values"]
    expected = encoder(pixels, output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(ClipFeatures(encoder)(crops), expected, atol=1e-5, rtol=0)
    zeros = encoder(torch.zeros_like(pixels[:1]), output_hidden_states=True).hidden_states[-2]
    torch.testing.assert_close(ClipFeatures(encoder).unconditional(), zeros)


def test_plus_adapter_in_a_pipeline(
    encoder: CLIPVisionModelWithProjection, analyzer: FaceAnalyzer, astronaut: np.ndarray, tmp_path: Path
) -> None:
    pipeline = make_pipeline()

    def make(feature_dim: int) -> IdentityAdapter:
        sizes = SMALL_PROJECTIONS["plus"] | {"feature_dim": feature_dim}
        return make_adapter(pipeline.unet, encoder=DlibEncoder.name, embedding_dim=128, projection=sizes)

    adapter = make(16)
    encoder.save_pretrained(tmp_path)
    pipeline.load_id_adapter(adapter, face_analyzer=analyzer, image_encoder=tmp_path)
    eileen = pipeline.encode_identity([astronaut, astronaut[:, ::-1]])
    assert eileen.features.shape == (2, 17, 16)
    picture = pipeline(**call_arguments(), id_embeds=eileen).images
    assert np.isfinite(picture).all()
    assert np.abs(picture - pipeline(**call_arguments()).images).max() > 0.02

    plain = FaceAnalyzer().find(astronaut)
    without = type(eileen)(embeddings=torch.from_numpy(plain.embedding)[None], encoder=plain.encoder)
    with pytest.raises(IdentityError, match="no image features"):
        pipeline(**call_arguments(), id_embeds=without)
    pipeline.unload_id_adapter()
    pipeline.load_id_adapter(adapter)
    with pytest.raises(AdapterError, match="image_encoder"):
        pipeline(**call_arguments(), id_embeds=eileen)
    with pytest.raises(AdapterError, match="24"):
        pipeline.load_id_adapter(make(24), image_encoder=encoder)
    with pytest.raises(AdapterError, match="no image features"):
        pipeline.load_id_adapter(make_adapter(pipeline.unet), image_encoder=encoder)


def test_image_encoder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="image encoder"):
        ClipFeatures(tmp_path / "none")
