"""What an identity costs in the cross-attention layers by themselves: python benchmarks/branch.py [--help]

The cross-attention layers of SD1.5 with random weights are timed inside of UNet calls with guidance, without an
identity and with one, in turn; one core, processor time. The whole call varies by more than what an identity adds.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import torch
import tyro
from networks import EMBEDDING_DIM, IP_TOKENS, SD15, inputs, make_adapter, make_unet
from rich.console import Console
from rich.progress import track
from rich.table import Table

from idgen.adapter import cross_attention_layers


class LayerTimes:
    """Processor time of the cross-attention layers in a UNet call, with all that hooks add to them."""

    def __init__(self, unet: Any) -> None:
        self.seconds, self._start, self._hooks = 0.0, 0.0, []
        for layer in cross_attention_layers(unet).values():
            self._hooks.append(layer.register_forward_pre_hook(self._begin, prepend=True))
            self._hooks.append(layer.register_forward_hook(self._end))

    def _begin(self, *_: Any) -> None:
        self._start = time.process_time()

    def _end(self, *_: Any) -> None:
        self.seconds += time.process_time() - self._start

    def remove(self) -> None:
        for hook in self._hooks:
            hook.remove()


def timed(unet: Any, call: dict[str, Any]) -> tuple[float, float]:
    """Seconds of the layers, and of the whole UNet call."""
    layers, start = LayerTimes(unet), time.process_time()
    unet(**call)
    layers.remove()
    return layers.seconds, time.process_time() - start


@torch.no_grad()
def main(side: int = 512, rounds: int = 20) -> None:
    """Measure and print.

    Args:
        side: Width and height of the picture in pixels.
        rounds: Rounds after the one that warms up.
    """
    torch.set_num_threads(1)
    unet = make_unet(SD15, torch.device("cpu"), torch.float32)
    call = inputs(unet, side)
    adapters = {f"{tokens} tokens": make_adapter(unet, tokens) for tokens in (IP_TOKENS, 16)}
    times: dict[str, list[tuple[float, float]]] = {"without": [], **{name: [] for name in adapters}}
    for _ in track(range(rounds + 1), console=Console(stderr=True)):
        for name, found in times.items():
            adapter = adapters.get(name)
            if adapter is None:
                found.append(timed(unet, call))
                continue
            adapter.attach(unet)
            with adapter.activate([adapter.encode(torch.ones(1, EMBEDDING_DIM))], num_images=1):
                found.append(timed(unet, call))
            adapter.detach()
    layers, whole = (
        {name: statistics.median(pair[part] for pair in found[1:]) for name, found in times.items()} for part in (0, 1)
    )
    table = Table("identity", "ms of the layers", "added", "of the UNet call", title=f"SD1.5, {side} px")
    for name, median in layers.items():
        added = median - layers["without"]
        cells = (
            ("", "") if name == "without" else (f"{1000 * added:.1f} ms", f"{100 * added / whole['without']:.2f} %")
        )
        table.add_row(name, f"{1000 * median:.1f}", *cells)
    table.caption = f"a UNet call without an identity: {whole['without']:.2f} s"
    Console(width=100).print(table)


if __name__ == "__main__":
    tyro.cli(main)
