"""EVA-CLIP's features of an aligned face, and the face parser, for PuLID adapters."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from transformers import SegformerConfig, SegformerForSemanticSegmentation

from idgen.errors import CheckpointError, MissingDependencyError
from idgen.faces import FFHQ_TEMPLATE, EvaFeatures, SegmentationParser, align_face
from idgen.faces.parsing import OUTSIDE

LABELS = ["background", "skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth"]
LABELS += ["u_lip", "l_lip", "hair", "hat", "ear_r", "neck_l", "neck", "cloth"]


def random_crop() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (512, 512, 3), dtype=np.uint8)


def test_the_crop_has_the_published_template_and_border() -> None:
    photo = np.full((300, 400, 3), (10, 20, 30), np.uint8)
    landmarks = FFHQ_TEMPLATE / 2 + [50, -100]  # the crop is x - 50, y + 100 in half pixels: its top is outside
    crop = align_face(photo, landmarks, FFHQ_TEMPLATE, 512, border=(132, 133, 135))
    assert (crop[:190, 10:500] == (132, 133, 135)).all()
    assert (crop[210:500, 10:500] == (10, 20, 30)).all()


class Top:
    """A face parser whose upper rows are not the face."""

    def outside(self, crop: np.ndarray) -> np.ndarray:
        found = np.zeros(crop.shape[:2], bool)
        found[:100] = True
        return found


def test_hidden_states_are_the_inputs_of_five_blocks() -> None:
    try:
        from timm.models.eva import Eva  # pyright: ignore[reportMissingImports]
    except (ImportError, RuntimeError) as error:  # torchvision of another build than torch raises RuntimeError
        pytest.skip(f"timm cannot be imported: {error}")
    torch.manual_seed(0)
    sizes: dict[str, Any] = {"img_size": 28, "embed_dim": 64, "depth": 24, "num_heads": 1, "num_classes": 48}
    model = Eva(**sizes, patch_size=14, swiglu_mlp=True, scale_mlp=True, use_rot_pos_emb=True, global_pool="token")
    inputs: list[torch.Tensor] = []
    for block in (4, 8, 12, 16, 20):
        model.blocks[block].register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    features = EvaFeatures(model, Top())
    crop = random_crop()
    found = features(crop)
    assert (features.name, features.dim, found.shape) == ("eva-clip-64x24", 64, (1 + 5 * 5, 64))

    grey = (torch.from_numpy(crop).float() / 255) @ torch.tensor([0.299, 0.587, 0.114])
    grey[:100] = 1
    small = F.interpolate(grey[None, None].expand(1, 3, 512, 512), (28, 28), mode="bicubic")
    mean, deviation = torch.tensor([[0.48145466, 0.4578275, 0.40821073], [0.26862954, 0.26130258, 0.27577711]])
    inputs.clear()
    embedding = model((small - mean[:, None, None]) / deviation[:, None, None])
    torch.testing.assert_close(found[0, :48], embedding[0] / embedding.norm(), atol=1e-6, rtol=0)
    assert not found[0, 48:].any()
    torch.testing.assert_close(found[1:], torch.cat(inputs, 1)[0], atol=1e-5, rtol=0)


def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingDependencyError, match=r"idgen-diffusers\[pulid\]"):
        EvaFeatures()


def test_a_face_parser_has_the_labels_of_celebamask() -> None:
    torch.manual_seed(0)
    sizes: dict[str, Any] = {
        "num_encoder_blocks": 2,
        "depths": [1, 1],
        "sr_ratios": [2, 1],
        "hidden_sizes": [8, 8],
        "num_attention_heads": [1, 1],
        "patch_sizes": [7, 3],
        "strides": [4, 2],
        "mlp_ratios": [1, 1],
        "decoder_hidden_size": 8,
    }
    model = SegformerForSemanticSegmentation(SegformerConfig(**sizes, id2label=dict(enumerate(LABELS)))).eval()
    crop = random_crop()
    pixels = torch.from_numpy(crop).permute(2, 0, 1).float() / 255
    mean, deviation = torch.tensor([[0.485, 0.456, 0.406], [0.229, 0.224, 0.225]])[..., None, None]
    logits = model(((pixels - mean) / deviation)[None]).logits
    names = np.array(LABELS)[F.interpolate(logits, (512, 512), mode="bilinear").argmax(1)[0].numpy()]
    assert np.array_equal(SegmentationParser(model).outside(crop), np.isin(names, OUTSIDE))
    with pytest.raises(CheckpointError, match="has no labels background"):
        SegmentationParser(SegformerForSemanticSegmentation(SegformerConfig(**sizes, id2label={0: "face"})))
