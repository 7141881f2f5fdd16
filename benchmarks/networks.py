"""Networks of the sizes of SD1.5 and SDXL with random weights, which benchmarks compare."""

from __future__ import annotations

from typing import Any

import torch
from diffusers import UNet2DConditionModel

from idgen import IdentityAdapter
from idgen.adapter import cross_attention_layers

SD15: dict[str, Any] = {"cross_attention_dim": 768, "attention_head_dim": 8}
SDXL: dict[str, Any] = {
    "cross_attention_dim": 2048,
    "attention_head_dim": (5, 10, 20),
    "block_out_channels": (320, 640, 1280),
    "down_block_types": ("DownBlock2D", "CrossAttnDownBlock2D", "CrossAttnDownBlock2D"),
    "up_block_types": ("CrossAttnUpBlock2D", "CrossAttnUpBlock2D", "UpBlock2D"),
    "transformer_layers_per_block": (1, 2, 10),
    "use_linear_projection": True,
    "addition_embed_type": "text_time",
    "addition_time_embed_dim": 256,
    "projection_class_embeddings_input_dim": 2816,
}
EMBEDDING_DIM = 512
IP_TOKENS = 4  # diffusers' FaceID projection has four


def make_unet(config: dict[str, Any], device: torch.device, dtype: torch.dtype) -> UNet2DConditionModel:
    """A UNet of these sizes, filled with small random numbers (on "meta": with nothing)."""
    with torch.device("meta"):
        unet = UNet2DConditionModel(**config).to(dtype)  # pyright: ignore
    return fill(unet, device).eval().requires_grad_(False)


def fill(module: Any, device: torch.device) -> Any:
    if device.type == "meta":
        return module
    module = module.to_empty(device=device)
    for weight in module.parameters():
        torch.nn.init.normal_(weight, std=0.02)
    return module


def make_adapter(unet: UNet2DConditionModel, tokens: int) -> IdentityAdapter:
    layers = {path: layer.inner_dim for path, layer in cross_attention_layers(unet).items()}
    with torch.device("meta"):
        adapter = IdentityAdapter(
            layers=layers,
            cross_attention_dim=unet.config["cross_attention_dim"],
            encoder="random",
            embedding_dim=EMBEDDING_DIM,
            num_tokens=tokens,
        )
    return fill(torch.nn.Module.to(adapter, unet.dtype), unet.device).eval().requires_grad_(False)


def faceid_weights(unet: UNet2DConditionModel) -> dict[str, dict[str, torch.Tensor]]:
    """The weights of an IP-Adapter-FaceID file without a LoRA, at random."""
    dim, options = unet.config["cross_attention_dim"], {"device": unet.device, "dtype": unet.dtype}
    projection = {
        "proj.0.weight": torch.randn(2 * EMBEDDING_DIM, EMBEDDING_DIM, **options) * 0.02,
        "proj.0.bias": torch.zeros(2 * EMBEDDING_DIM, **options),
        "proj.2.weight": torch.randn(IP_TOKENS * dim, 2 * EMBEDDING_DIM, **options) * 0.02,
        "proj.2.bias": torch.zeros(IP_TOKENS * dim, **options),
        "norm.weight": torch.ones(dim, **options),
        "norm.bias": torch.zeros(dim, **options),
    }
    names = [name for name in unet.attn_processors if name.endswith("attn2.processor")]
    weights = {
        f"{2 * i + 1}.to_{kind}_ip.weight": torch.randn(
            unet.get_submodule(name.removesuffix(".processor")).inner_dim,  # pyright: ignore
            dim,
            **options,
        )
        * 0.02
        for i, name in enumerate(names)
        for kind in "kv"
    }
    return {"image_proj": projection, "ip_adapter": weights}


def load_faceid(unet: UNet2DConditionModel) -> None:
    """diffusers' IP-Adapter-FaceID of random weights, through its own loader."""
    unet._load_ip_adapter_weights([faceid_weights(unet)])


def inputs(unet: UNet2DConditionModel, side: int, batch: int = 1) -> dict[str, Any]:
    """Pictures with guidance: a batch of two for each."""
    options: dict[str, Any] = {"device": unet.device, "dtype": unet.dtype}
    arguments: dict[str, Any] = {
        "sample": torch.randn(2 * batch, 4, side // 8, side // 8, **options),
        "timestep": torch.tensor(500, device=unet.device),
        "encoder_hidden_states": torch.randn(2 * batch, 77, unet.config["cross_attention_dim"], **options),
        "added_cond_kwargs": {},
    }
    if unet.config["addition_embed_type"]:
        arguments["added_cond_kwargs"] |= {
            "text_embeds": torch.randn(2 * batch, 1280, **options),
            "time_ids": torch.zeros(2 * batch, 6, **options),
        }
    return arguments
