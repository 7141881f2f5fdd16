"""Tiny random components of diffusers' and transformers' real classes, made offline in milliseconds."""

from __future__ import annotations

import json
import string
import tempfile
from pathlib import Path
from typing import Any

import diffusers
import torch
from diffusers import AutoencoderKL, ControlNetModel, DDIMScheduler, UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTextModelWithProjection, CLIPTokenizer

from idgen import IdentityAdapter

FAMILIES = ("sd", "sdxl")
TASKS = ("txt2img", "img2img", "inpaint")
SIDE = 32
TEXT_DIM = 16
ONE_LEVEL: dict[str, Any] = {
    "block_out_channels": (16,),
    "down_block_types": ("CrossAttnDownBlock2D",),
    "up_block_types": ("CrossAttnUpBlock2D",),
    "attention_head_dim": 2,
}
"""A UNet of half as many layers."""
TO_COMPILE = {
    **ONE_LEVEL,
    "transformer_layers_per_block": 2,
    "mid_block_type": None,
    "up_block_types": ("UpBlock2D",),
}
"""A UNet with two cross-attention layers and little else: torch takes a second to trace it."""


SMALL_IMAGE_ENCODER: dict[str, Any] = {
    "feature_dim": 12,
    "image_depth": 1,
    "image_heads": 2,
    "image_hidden_dim": 16,
    "image_size": 28,
    "text_dim": 6,
}
SMALL_PROJECTIONS: dict[str, dict[str, Any]] = {
    "mlp": {"type": "mlp"},
    "none": {"type": "none"},
    "resampler": {"type": "resampler", "hidden_dim": 16, "dim_head": 8, "depth": 1},
    "rows": {"type": "rows", "rows": 4, "hidden_dim": 16, "dim_head": 8, "depth": 1},
    "plus": {"type": "plus", "feature_dim": 12, "dim_head": 8, "depth": 1, "shortcut": True},
    "pulid": {"type": "pulid", "feature_dim": 12, "clip_dim": 6, "hidden_dim": 16, "hidden_dim_2": 24},
    "idformer": {
        "type": "idformer",
        "feature_dim": 12,
        "clip_dim": 6,
        "hidden_dim": 16,
        "dim_head": 8,
        "depth": 5,
        "id_tokens": 2,
        "map_dim": 20,
    },
    "photomaker": {"type": "photomaker", **SMALL_IMAGE_ENCODER},
    "photomaker-v2": {"type": "photomaker-v2", "dim_head": 8, "depth": 1, **SMALL_IMAGE_ENCODER},
}


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def make_tokenizer() -> CLIPTokenizer:
    """A CLIP tokenizer that knows letters."""
    letters = list(string.ascii_lowercase)
    words = ["<|startoftext|>", "<|endoftext|>", *letters, *(letter + "</w>" for letter in letters)]
    with tempfile.TemporaryDirectory() as folder:
        vocab, merges = Path(folder, "vocab.json"), Path(folder, "merges.txt")
        vocab.write_text(json.dumps({word: i for i, word in enumerate(words)}))
        merges.write_text("#version: 0.2\n")
        return CLIPTokenizer(vocab_file=str(vocab), merges_file=str(merges), model_max_length=77)


def make_text_encoder(projection: bool = False, dim: int = TEXT_DIM) -> CLIPTextModel | CLIPTextModelWithProjection:
    config = CLIPTextConfig(
        vocab_size=64,
        hidden_size=dim,
        intermediate_size=32,
        num_hidden_layers=2,
        num_attention_heads=2,
        projection_dim=TEXT_DIM,
        bos_token_id=0,
        eos_token_id=1,
        pad_token_id=1,
    )
    torch.manual_seed(1)
    return (CLIPTextModelWithProjection if projection else CLIPTextModel)(config).eval()


def make_unet(family: str = "sd", **changes: Any) -> UNet2DConditionModel:
    """Two levels with cross-attention and a middle; the bias of an output map may be missing, as in the wild."""
    config: dict[str, Any] = {
        "block_out_channels": (16, 32),
        "layers_per_block": 1,
        "sample_size": SIDE // 2,
        "norm_num_groups": 4,
        "down_block_types": ("CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
        "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D"),
        "attention_head_dim": (2, 4),
        "cross_attention_dim": TEXT_DIM,
    }
    if family == "sdxl":
        config |= {
            "cross_attention_dim": 2 * TEXT_DIM,
            "transformer_layers_per_block": (1, 2),
            "use_linear_projection": True,
            "addition_embed_type": "text_time",
            "addition_time_embed_dim": 8,
            "projection_class_embeddings_input_dim": TEXT_DIM + 6 * 8,
        }
    torch.manual_seed(2)
    return UNet2DConditionModel(**(config | changes)).eval()


def make_vae() -> AutoencoderKL:
    torch.manual_seed(3)
    config: dict[str, Any] = {
        "block_out_channels": (8, 8),
        "down_block_types": ("DownEncoderBlock2D",) * 2,
        "up_block_types": ("UpDecoderBlock2D",) * 2,
    }
    return AutoencoderKL(**config, norm_num_groups=4, latent_channels=4, sample_size=SIDE).eval()


def make_controlnet(unet: UNet2DConditionModel) -> ControlNetModel:
    """A ControlNet whose outputs are not zero, as they are before training."""
    torch.manual_seed(4)
    controlnet = ControlNetModel.from_unet(unet, conditioning_embedding_out_channels=(8, 8))
    for block in (*controlnet.controlnet_down_blocks, controlnet.controlnet_mid_block):
        torch.nn.init.normal_(block.weight, std=0.1)  # pyright: ignore
    return controlnet.eval()


def make_pipeline(family: str = "sd", task: str = "txt2img", controlnet: bool = False, **unet: Any) -> Any:
    """A stock pipeline of random weights."""
    names = {"txt2img": "", "img2img": "Img2Img", "inpaint": "Inpaint"}
    xl = "XL" if family == "sdxl" else ""
    name = f"StableDiffusion{xl}{'ControlNet' if controlnet else ''}{names[task]}Pipeline"
    components: dict[str, Any] = {
        "vae": make_vae(),
        "unet": make_unet(family, **unet),
        "scheduler": DDIMScheduler(clip_sample=False, steps_offset=1),
        "text_encoder": make_text_encoder(),
        "tokenizer": make_tokenizer(),
    }
    if family == "sdxl":
        components |= {"text_encoder_2": make_text_encoder(projection=True), "tokenizer_2": make_tokenizer()}
    else:
        components |= {"safety_checker": None, "feature_extractor": None, "requires_safety_checker": False}
    if controlnet:
        components["controlnet"] = make_controlnet(components["unet"])
    pipeline = getattr(diffusers, name)(**components)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def call_arguments(task: str = "txt2img", controlnet: bool = False, **changes: Any) -> dict[str, Any]:
    """What a call of a pipeline from `make_pipeline` needs; the same noise each time."""
    picture = torch.rand(1, 3, SIDE, SIDE, generator=seeded(5))
    arguments: dict[str, Any] = {
        "prompt": "a face",
        "num_inference_steps": 3,
        "guidance_scale": 5.0,
        "output_type": "np",
        "generator": seeded(6),
    }
    if task == "txt2img":
        arguments |= {"height": SIDE, "width": SIDE}
    else:
        arguments |= {"image": picture, "strength": 0.9}
    if task == "inpaint":
        mask = torch.zeros(1, 1, SIDE, SIDE)
        mask[..., : SIDE // 2] = 1
        arguments |= {"mask_image": mask, "height": SIDE, "width": SIDE}
    if controlnet:
        arguments["image" if task == "txt2img" else "control_image"] = picture.flip(-1)
        if task != "txt2img":
            arguments |= {"height": SIDE, "width": SIDE}
    return arguments | changes


def make_adapter(unet: torch.nn.Module, seed: int = 7, encoder: str = "test", **config: Any) -> IdentityAdapter:
    """A random adapter for a UNet, strong enough to be seen."""
    torch.manual_seed(seed)
    config = {"embedding_dim": 8} | config
    adapter = IdentityAdapter.from_unet(unet, encoder=encoder, **config).eval()
    for branch in adapter.branches.values():
        for weight in branch.parameters():
            torch.nn.init.normal_(weight, std=0.5)
    return adapter
