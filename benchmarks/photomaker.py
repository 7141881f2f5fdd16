"""What PhotoMaker costs, as published and in idgen: python benchmarks/photomaker.py

Operations of one call of SDXL's UNet with guidance, and of reading photos and fusing, are counted on meta tensors of
the real sizes; so are the bytes of weights in half precision. The published pipeline adds the LoRA to the UNet's
weights (fused), or runs it by PEFT. idgen runs it beside the layers, so that it can be removed exactly.
"""

from __future__ import annotations

from typing import Any

import torch
import tyro
from networks import SDXL, inputs, make_unet
from peft import LoraConfig
from pulid import META, count
from rich.console import Console
from rich.table import Table

from idgen import IdentityAdapter
from idgen.adapter import cross_attention_layers

RANK = 64
VERSIONS: dict[str, dict[str, Any]] = {
    "v1": {"projection": "photomaker", "num_tokens": 1, "embedding_dim": 128},
    "v2": {"projection": "photomaker-v2", "num_tokens": 2, "embedding_dim": 512},
}


def main(width: int = 1024, height: int = 1024, photos: int = 4) -> None:
    """Count operations and bytes of PhotoMaker.

    Args:
        width: Width of the image in pixels.
        height: Its height.
        photos: Photos of the person.
    """
    table = Table("", "UNet call, TFLOP", "reading the photos, GFLOP", "fusing, GFLOP", "weights, GB")
    unet = make_unet(SDXL, META, torch.float16)
    arguments = inputs(unet, 8)
    arguments["sample"] = torch.empty(2, 4, height // 8, width // 8, dtype=torch.float16, device=META)
    bare = count(lambda: unet(**arguments)) / 1e12
    table.add_row("bare UNet; published, LoRA fused", f"{bare:.4f}")
    layers = {path: layer.inner_dim for path, layer in cross_attention_layers(unet).items()}
    for version, config in VERSIONS.items():
        with META:
            adapter = IdentityAdapter(
                layers=layers,
                cross_attention_dim=2048,
                encoder="any",
                pool_photos=False,
                lora_rank=RANK,
                **config,
            )
        adapter.place(META, torch.float16)
        adapter.eval().requires_grad_(False)
        adapter.scale = 1.0  # without a schedule, which would read the timestep
        reading, fusing, person = read(adapter, photos)
        adapter.attach(unet)
        with torch.no_grad(), adapter.activate([person], 1):
            ours = count(lambda: unet(**arguments)) / 1e12
        adapter.detach()
        weights = 2 * adapter.num_parameters() / 1e9
        table.add_row(
            f"{version}, idgen", f"{ours:.4f}", f"{reading / 1e9:.1f}", f"{fusing / 1e9:.3f}", f"{weights:.2f}"
        )
    with META:
        unet.add_adapter(LoraConfig(r=RANK, target_modules=["to_q", "to_k", "to_v", "to_out.0"]))
    table.add_row("published, LoRA by PEFT", f"{count(lambda: unet(**arguments)) / 1e12:.4f}")
    Console().print(table)


def read(adapter: IdentityAdapter, photos: int) -> tuple[int, int, Any]:
    """Operations of reading photos and of fusing their tokens with the prompt, and the tokens."""
    projection: Any = adapter.to_tokens
    pixels = torch.empty(photos, 3, 224, 224, dtype=torch.float16, device=META)
    embeds = torch.empty(1, photos, adapter.config["embedding_dim"], dtype=torch.float16, device=META)

    def encode() -> Any:
        return adapter.encode(embeds, projection.encode_images(pixels)[None])

    person = encode()
    words = torch.empty_like(person.tokens)
    return count(encode), count(lambda: projection.fuse(words, person.tokens)), person


if __name__ == "__main__":
    tyro.cli(main)
