"""Measure the cost of an identity in each denoising step: python benchmarks/inference.py [--help]

The bare UNet, diffusers' own IP-Adapter-FaceID and idgen's adapter at equal sizes, with random weights, in one run;
then idgen with two people in regions, and with an IdentityNet in every, every second and every third step. FLOPs are
counted on meta tensors; times are medians over interleaved rounds, with half their range.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, Literal

import torch
import tyro
from diffusers import UNet2DConditionModel
from networks import EMBEDDING_DIM, IP_TOKENS, SD15, SDXL, fill, inputs, load_faceid, make_adapter, make_unet
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.utils.flop_counter import FlopCounterMode

from idgen import IdentityNet
from idgen.adapter import IdentityTokens

INTERVALS = (1, 2, 3)
STEPS = 6  # a multiple of all intervals
BARE, FACEID = "bare UNet", "diffusers IP-Adapter-FaceID"

Step = Callable[[Any, Any], Any]
"""One denoising step, called with the UNet and the IdentityNet, compiled or not."""


class Contestants:
    """All of them on one UNet, so that the memory of one is enough."""

    def __init__(self, unet: UNet2DConditionModel, side: int, batch: int) -> None:
        self.unet, self.side, self.batch = unet, side, batch
        self.inputs = inputs(unet, side, batch)
        self.options: dict[str, Any] = {"device": unet.device, "dtype": unet.dtype}
        self.bare = dict(unet.attn_processors)
        self.adapters = {tokens: make_adapter(unet, tokens) for tokens in (IP_TOKENS, 16)}
        with torch.device("meta"):
            net = IdentityNet.from_unet(unet)
        self.net = fill(net, unet.device).to(unet.dtype).eval().requires_grad_(False)
        embeds = torch.randn(2 * batch, 1, EMBEDDING_DIM, **self.options)
        self.with_image = self.inputs | {
            "added_cond_kwargs": self.inputs["added_cond_kwargs"] | {"image_embeds": [embeds[:, None]]}
        }
        load_faceid(unet)
        self.faceid, self.projection = dict(unet.attn_processors), unet.encoder_hid_proj
        self._use_bare()

    def names(self) -> dict[str, AbstractContextManager[Step]]:
        """What takes part: a context that yields its step. Each context is entered once."""
        return {
            BARE: nullcontext(lambda unet, net: unet(**self.inputs)),
            FACEID: self._with_faceid(),
            "idgen": self._with_adapter(IP_TOKENS),
            "idgen, 16 tokens": self._with_adapter(16),
            "idgen, two people in regions": self._with_adapter(16, people=2),
            **{f"idgen, IdentityNet every {n}. step": self._with_net(n) for n in INTERVALS},
        }

    def _use_bare(self) -> None:
        self.unet.set_attn_processor(dict(self.bare))  # pyright: ignore
        self.unet.encoder_hid_proj = None
        self.unet.config.encoder_hid_dim_type = None  # pyright: ignore  # as diffusers' loader sets it

    @contextmanager
    def _with_faceid(self) -> Iterator[Step]:
        self.unet.set_attn_processor(dict(self.faceid))  # pyright: ignore
        self.unet.encoder_hid_proj = self.projection
        self.unet.config.encoder_hid_dim_type = "ip_image_proj"  # pyright: ignore
        yield lambda unet, net: unet(**self.with_image)
        self._use_bare()

    @contextmanager
    def _with_adapter(self, tokens: int, people: int = 1) -> Iterator[Step]:
        with self._active(tokens, people):
            yield lambda unet, net: unet(**self.inputs)

    @contextmanager
    def _with_net(self, interval: int) -> Iterator[Step]:
        drawing = torch.zeros(2 * self.batch, 3, self.side, self.side, **self.options)

        def step(unet: Any, net: Any) -> Any:
            down, middle = net(**self.inputs, controlnet_cond=drawing, return_dict=False)
            return unet(**self.inputs, down_block_additional_residuals=down, mid_block_additional_residual=middle)

        with (
            self._active(16, 1) as people,
            self.net.activate(people, self.batch, interval=interval),
        ):
            yield step

    @contextmanager
    def _active(self, tokens: int, people: int) -> Iterator[list[IdentityTokens]]:
        adapter = self.adapters[tokens]
        adapter.attach(self.unet)
        found = [adapter.encode(torch.ones(1, EMBEDDING_DIM, **self.options)) for _ in range(people)]
        masks = None
        if people > 1:
            masks = [torch.zeros(self.side, self.side, **self.options) for _ in range(people)]
            for i, mask in enumerate(masks):
                mask[:, i * self.side // people : (i + 1) * self.side // people] = 1
        with adapter.activate(found, num_images=self.batch, masks=masks):
            yield found
        adapter.detach()


@torch.no_grad()
def count_flops(config: dict[str, Any], side: int) -> dict[str, float]:
    """Floating-point operations of a step of one picture, for each contestant; the mean over `STEPS`."""
    unet = make_unet(config, torch.device("meta"), torch.float32)
    contestants = Contestants(unet, side, 1)
    flops = {}
    for name, entered in contestants.names().items():
        steps = STEPS if "IdentityNet" in name else 1
        with entered as step, FlopCounterMode(display=False) as counter:
            for _ in range(steps):
                step(unet, contestants.net)
        flops[name] = counter.get_total_flops() / steps
    return flops


@torch.no_grad()
def measure(
    config: dict[str, Any],
    side: int,
    batch: int,
    rounds: int,
    device: torch.device,
    dtype: torch.dtype,
    compiled: bool,
) -> dict[str, tuple[float, float]]:
    """Milliseconds of a step, for each contestant: median and half the range over rounds in which all take turns."""
    unet = make_unet(config, device, dtype)
    contestants = Contestants(unet, side, batch)
    times: dict[str, list[float]] = {name: [] for name in contestants.names()}
    title = f"{side} px, batch {batch}{', compiled' if compiled else ''}"
    for i in track(range(rounds + 1), title, console=Console(stderr=True)):
        for name, entered in contestants.names().items():
            steps = STEPS if device.type == "cuda" or "IdentityNet" in name else 1
            with entered as step:
                nets = [torch.compile(each) if compiled else each for each in (unet, contestants.net)]
                for _ in range(max(INTERVALS) if compiled else 1):
                    step(*nets)  # warms up, and compiles
                _wait(device)
                start = time.perf_counter()
                for _ in range(steps):
                    step(*nets)
                _wait(device)
            if i:
                times[name].append((time.perf_counter() - start) / steps * 1000)
    return {name: (statistics.median(found), (max(found) - min(found)) / 2) for name, found in times.items()}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main(
    model: tuple[Literal["sd15", "sdxl"], ...] = ("sd15", "sdxl"),
    side: int | None = None,
    batch: tuple[int, ...] = (1, 4),
    rounds: int = 5,
    time_steps: bool = True,
    compile: bool = True,
) -> None:
    """Print one table.

    Args:
        model: Which sizes.
        side: Picture's side in pixels; 512 for SD1.5 and 1024 for SDXL if not given.
        batch: Pictures at a time.
        rounds: How often everything is timed.
        time_steps: Off: count FLOPs only.
        compile: Time compiled networks too, on a GPU.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    machine = torch.cuda.get_device_name() if device.type == "cuda" else "CPU"
    table = Table(title=f"{machine}, {str(dtype).removeprefix('torch.')}, with guidance")
    for column in ("UNet", "", "GFLOPs a step and picture", "more FLOPs", "ms a step", "to bare", "to FaceID"):
        table.add_column(column, justify="left" if column in ("UNet", "") else "right")
    for name in model:
        config, pixels = (SD15, side or 512) if name == "sd15" else (SDXL, side or 1024)
        flops = count_flops(config, pixels)
        for size in batch if time_steps else batch[:1]:
            for compiled in (False, True) if device.type == "cuda" and compile else (False,):
                times = measure(config, pixels, size, rounds, device, dtype, compiled) if time_steps else {}
                for row, count in flops.items():
                    cells = ["–"] * 3
                    if times:
                        median, spread = times[row]
                        ratios = (median / times[other][0] for other in (BARE, FACEID))
                        cells = [f"{median:.1f} ± {spread:.1f}", *(f"{ratio:.3f}" for ratio in ratios)]
                    title = f"{name} {pixels} px, {size}{', compiled' if compiled else ''}"
                    table.add_row(title, row, f"{count / 1e9:.1f}", f"{count / flops[BARE] - 1:+.2%}", *cells)
                table.add_section()
    Console(width=150).print(table)


if __name__ == "__main__":
    tyro.cli(main)
