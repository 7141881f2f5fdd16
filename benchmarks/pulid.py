"""What PuLID costs, as published and in idgen: python benchmarks/pulid.py

Operations of one call of SDXL's UNet with guidance, and of the ID encoder, are counted on meta tensors of the real
sizes; so are the bytes of weights and of keys and values. The published attention computes keys and values of the
identity at each step, from weights in float32.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
import tyro
from diffusers import UNet2DConditionModel
from networks import SDXL, inputs, make_unet
from rich.console import Console
from rich.table import Table
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from idgen import IdentityAdapter
from idgen.adapter import cross_attention_layers

META = torch.device("meta")
VERSIONS: dict[str, dict[str, Any]] = {
    "v1": {"projection": "pulid", "num_tokens": 10, "ortho": "ortho_v2", "num_zero": 8},
    "v1.1": {"projection": "idformer", "num_tokens": 32, "ortho": "ortho_v2", "num_zero": 20},
}


class PublishedProcessor(nn.Module):
    """The published attention with `ortho_v2`."""

    def __init__(self, cross_attention_dim: int, inner_dim: int, tokens: torch.Tensor, num_zero: int) -> None:
        super().__init__()
        self.to_k = nn.Linear(cross_attention_dim, inner_dim, bias=False)
        self.to_v = nn.Linear(cross_attention_dim, inner_dim, bias=False)
        self.tokens = F.pad(tokens, (0, 0, 0, num_zero))

    def __call__(self, attn: Any, hidden_states: torch.Tensor, encoder_hidden_states: Any, **_: Any) -> torch.Tensor:
        def heads(x: torch.Tensor) -> torch.Tensor:
            return x.unflatten(-1, (attn.heads, -1)).transpose(1, 2)

        query, key = heads(attn.to_q(hidden_states)), heads(self.to_k(self.tokens).to(hidden_states.dtype))
        value = heads(self.to_v(self.tokens).to(hidden_states.dtype))
        text_key, text_value = (heads(part(encoder_hidden_states)) for part in (attn.to_k, attn.to_v))
        text = F.scaled_dot_product_attention(query, text_key, text_value).transpose(1, 2).flatten(2).float()
        found = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2).float()
        share = (query @ key.mT).softmax(-1).mean(1)[..., :5].sum(-1, keepdim=True)
        along = (text * found).sum(1, keepdim=True) / text.square().sum(1, keepdim=True) * text
        return attn.to_out[0]((text + found + (share - 1) * along).to(hidden_states.dtype))


def main(width: int = 768, height: int = 1024, photos: int = 1) -> None:
    """Count operations and bytes of PuLID.

    Args:
        width: Width of the image in pixels.
        height: Its height.
        photos: Photos of the person.
    """
    table = Table("", "UNet call, TFLOP", "ID encoder, GFLOP", "weights, GB", "keys and values, MB")
    unet = make_unet(SDXL, META, torch.float16)
    arguments = inputs(unet, 8)
    arguments["sample"] = torch.empty(2, 4, height // 8, width // 8, dtype=torch.float16, device=META)
    bare = dict(unet.attn_processors)
    table.add_row("bare UNet", f"{count(lambda: unet(**arguments)) / 1e12:.4f}")
    for version, config in VERSIONS.items():
        adapter = make_adapter(unet, config)
        encoder = count(lambda adapter=adapter: encode(adapter, photos))
        with torch.no_grad():
            person = encode(adapter, photos)
        adapter.attach(unet)
        with torch.no_grad(), adapter.activate([person], 1):
            ours = count(lambda: unet(**arguments))
        adapter.detach()
        tokens = torch.cat([person.negative_tokens, person.tokens]).float()
        publish(unet, tokens, config["num_zero"])
        published = count(lambda: unet(**arguments))
        unet.set_attn_processor(dict(bare))
        all_weights = 4 * sum(weight.numel() for weight in adapter.parameters())
        own_weights = sum(weight.numel() * weight.element_size() for weight in adapter.parameters())
        rows = tokens.shape[1] + config["num_zero"]
        kept = sum(2 * 2 * 2 * rows * width for width in adapter.config["layers"].values())
        table.add_row(f"{version}, published", f"{published / 1e12:.4f}", "", f"{all_weights / 1e9:.2f}", "0")
        row = f"{ours / 1e12:.4f}", f"{encoder / 1e9:.1f}", f"{own_weights / 1e9:.2f}", f"{kept / 1e6:.1f}"
        table.add_row(f"{version}, idgen", *row)
    Console().print(table)


def make_adapter(unet: UNet2DConditionModel, config: dict[str, Any]) -> IdentityAdapter:
    layers = {path: layer.inner_dim for path, layer in cross_attention_layers(unet).items()}
    with META:
        adapter = IdentityAdapter(
            layers=layers, cross_attention_dim=2048, encoder="insightface/antelopev2", pool_photos=False, **config
        )
    adapter.place(META, torch.float16)
    return adapter.eval().requires_grad_(False)


def encode(adapter: IdentityAdapter, photos: int) -> Any:
    """Tokens of a person, with the features of EVA-CLIP at 336 px."""
    features = torch.empty(1, photos, 1 + 5 * 577, 1024, device=META)
    return adapter.encode(torch.empty(1, photos, 512, device=META), features)


def publish(unet: UNet2DConditionModel, tokens: torch.Tensor, num_zero: int) -> None:
    processors: dict[str, Any] = dict(unet.attn_processors)
    for path, layer in cross_attention_layers(unet).items():
        with META:
            processors[f"{path}.processor"] = PublishedProcessor(2048, layer.inner_dim, tokens, num_zero)
    unet.set_attn_processor(processors)


@torch.no_grad()
def count(act: Any) -> int:
    """Floating-point operations of a function on meta tensors."""
    with FlopCounterMode(display=False) as counter:
        act()
    return counter.get_total_flops()


if __name__ == "__main__":
    tyro.cli(main)
