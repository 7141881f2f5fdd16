"""Measure the cost of an identity in each denoising step: python benchmarks/inference.py [--help]

The bare UNet, diffusers' own IP-Adapter-FaceID and idgen's adapter at equal sizes, with random weights, in one run.
FLOPs are counted on meta tensors; times are medians over interleaved rounds.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any, Literal

import torch
import tyro
from diffusers import UNet2DConditionModel
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

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


def load_faceid(unet: UNet2DConditionModel) -> None:
    """diffusers' IP-Adapter-FaceID of random weights, through its own loader."""
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
    unet._load_ip_adapter_weights([{"image_proj": projection, "ip_adapter": weights}])


def inputs(unet: UNet2DConditionModel, side: int) -> dict[str, Any]:
    """One picture with guidance: a batch of two."""
    options: dict[str, Any] = {"device": unet.device, "dtype": unet.dtype}
    arguments: dict[str, Any] = {
        "sample": torch.randn(2, 4, side // 8, side // 8, **options),
        "timestep": torch.tensor(500, device=unet.device),
        "encoder_hidden_states": torch.randn(2, 77, unet.config["cross_attention_dim"], **options),
        "added_cond_kwargs": {},
    }
    if unet.config["addition_embed_type"]:
        time_ids = torch.zeros(2, 6, **options)
        arguments["added_cond_kwargs"] |= {"text_embeds": torch.randn(2, 1280, **options), "time_ids": time_ids}
    return arguments


class Contestants:
    """The three, on one UNet, so that the memory of one is enough."""

    def __init__(self, unet: UNet2DConditionModel, side: int) -> None:
        self.unet, self.inputs = unet, inputs(unet, side)
        self.bare = dict(unet.attn_processors)
        self.adapters = {tokens: make_adapter(unet, tokens) for tokens in (IP_TOKENS, 16)}
        embeds = torch.randn(2, 1, EMBEDDING_DIM, device=unet.device, dtype=unet.dtype)
        self.with_image = self.inputs | {
            "added_cond_kwargs": self.inputs["added_cond_kwargs"] | {"image_embeds": [embeds[:, None]]}
        }
        load_faceid(unet)
        self.faceid, self.projection = dict(unet.attn_processors), unet.encoder_hid_proj
        self._use_bare()

    def names(self) -> dict[str, Callable[[], Any]]:
        return {
            "bare UNet": lambda: nullcontext(self.inputs),
            "diffusers IP-Adapter-FaceID": self._with_faceid,
            "idgen": lambda: self._with_adapter(IP_TOKENS),
            "idgen, 16 tokens": lambda: self._with_adapter(16),
        }

    def _use_bare(self) -> None:
        self.unet.set_attn_processor(dict(self.bare))  # pyright: ignore
        self.unet.encoder_hid_proj = None
        self.unet.config.encoder_hid_dim_type = None  # pyright: ignore  # as diffusers' loader sets it

    @contextmanager
    def _with_faceid(self) -> Iterator[dict[str, Any]]:
        self.unet.set_attn_processor(dict(self.faceid))  # pyright: ignore
        self.unet.encoder_hid_proj = self.projection
        self.unet.config.encoder_hid_dim_type = "ip_image_proj"  # pyright: ignore
        yield self.with_image
        self._use_bare()

    @contextmanager
    def _with_adapter(self, tokens: int) -> Iterator[dict[str, Any]]:
        adapter = self.adapters[tokens]
        adapter.attach(self.unet)
        person = adapter.encode(torch.ones(1, EMBEDDING_DIM, device=self.unet.device, dtype=self.unet.dtype))
        with adapter.activate([person], num_images=1):
            yield self.inputs
        adapter.detach()


@torch.no_grad()
def count_flops(config: dict[str, Any], side: int) -> dict[str, int]:
    """Floating-point operations of one UNet call, for each contestant."""
    unet = make_unet(config, torch.device("meta"), torch.float32)
    flops = {}
    for name, enter in Contestants(unet, side).names().items():
        with enter() as arguments, FlopCounterMode(display=False) as counter:
            unet(**arguments)
        flops[name] = counter.get_total_flops()
    return flops


@torch.no_grad()
def measure(
    config: dict[str, Any], side: int, rounds: int, device: torch.device, dtype: torch.dtype, compiled: bool
) -> dict[str, float]:
    """Milliseconds of one UNet call, for each contestant: the median over rounds in which all take turns."""
    unet = make_unet(config, device, dtype)
    contestants = Contestants(unet, side)
    times: dict[str, list[float]] = {name: [] for name in contestants.names()}
    calls = 4 if device.type == "cuda" else 1
    for i in track(range(rounds + 1), f"{side} px{', compiled' if compiled else ''}", console=Console(stderr=True)):
        for name, enter in contestants.names().items():
            with enter() as arguments:
                run = torch.compile(unet) if compiled else unet
                run(**arguments)  # warms up, and compiles
                _wait(device)
                start = time.perf_counter()
                for _ in range(calls):
                    run(**arguments)
                _wait(device)
            if i:
                times[name].append((time.perf_counter() - start) / calls * 1000)
    return {name: statistics.median(values) for name, values in times.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main(
    model: tuple[Literal["sd15", "sdxl"], ...] = ("sd15", "sdxl"),
    side: int | None = None,
    rounds: int = 5,
    time_steps: bool = True,
) -> None:
    """Print one table.

    Args:
        model: Which sizes.
        side: Picture's side in pixels; 512 for SD1.5 and 1024 for SDXL if not given.
        rounds: How often everything is timed.
        time_steps: Off: count FLOPs only.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    table = Table(title=f"{device.type}, {str(dtype).removeprefix('torch.')}, one picture with guidance")
    for column in ("UNet", "", "GFLOPs a step", "more FLOPs", "ms a step", "to bare", "to FaceID"):
        table.add_column(column, justify="left" if column in ("UNet", "") else "right")
    for name in model:
        config, pixels = (SD15, side or 512) if name == "sd15" else (SDXL, side or 1024)
        flops = count_flops(config, pixels)
        for compiled in (False, True) if device.type == "cuda" else (False,):
            times = measure(config, pixels, rounds, device, dtype, compiled) if time_steps else {}
            for row in flops:
                more = flops[row] / flops["bare UNet"] - 1
                cells = ["–"] * 3
                if times:
                    bare, faceid = times["bare UNet"], times["diffusers IP-Adapter-FaceID"]
                    cells = [f"{times[row]:.0f}", f"{times[row] / bare:.3f}", f"{times[row] / faceid:.3f}"]
                title = f"{name} {pixels} px{', compiled' if compiled else ''}"
                table.add_row(title, row, f"{flops[row] / 1e9:.1f}", f"{more:+.2%}", *cells)
            table.add_section()
    Console(width=130).print(table)


if __name__ == "__main__":
    tyro.cli(main)
