"""Measure the time saved by computing an IdentityNet only every k-th step, and the change of the picture.

    python benchmarks/control_interval.py

The base is the built-in model. Its IdentityNet is not trained: it adds a share of the encoder's own features, which
change from step to step like those of a trained one. Times are medians over interleaved rounds.
"""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import torch
import tyro
from diffusers import StableDiffusionControlNetPipeline
from rich.console import Console
from rich.table import Table

from idgen import Identity, IdentityAdapter, IdentityNet
from idgen.tiny import load_tiny_base


def make_pipeline(share: float) -> Any:
    """The small model with an adapter and an IdentityNet whose output maps are `share` times the identity."""
    base = load_tiny_base()
    net = IdentityNet.from_unet(base.unet, conditioning_embedding_out_channels=(16, 32, 96))
    for layer in (*net.controlnet_down_blocks, net.controlnet_mid_block):
        torch.nn.init.dirac_(layer.weight)  # pyright: ignore
        layer.weight.data *= share  # pyright: ignore
    pipe: Any = StableDiffusionControlNetPipeline(**base.components, controlnet=net.eval())
    pipe.set_progress_bar_config(disable=True)
    torch.manual_seed(0)
    pipe.load_id_adapter(IdentityAdapter.from_unet(pipe.unet, encoder="random", embedding_dim=128))
    return pipe


def main(
    steps: int = 25, pictures: int = 8, rounds: int = 3, share: float = 0.3, intervals: tuple[int, ...] = (1, 2, 3)
):
    """Draw the same pictures at every interval.

    Args:
        steps: Denoising steps.
        pictures: How many, drawn at once.
        rounds: Times each interval is measured.
        share: How strongly the net acts.
        intervals: The values of control_interval; changes are against the first.
    """
    pipe = make_pipeline(share)
    person = Identity.random("random", 128, seed=1)
    landmarks = pipe.prepare_landmarks(np.array([[40.0, 52], [86, 52], [64, 72], [46, 94], [82, 94]]), (128, 128))

    def draw(interval: int, scale: float = 1.0) -> tuple[float, np.ndarray]:
        generators = [torch.Generator().manual_seed(i) for i in range(pictures)]
        start = time.perf_counter()
        images = pipe(
            ["a photo of a face"] * pictures,
            image=[landmarks] * pictures,
            id_embeds=person,
            control_interval=interval,
            controlnet_conditioning_scale=scale,
            num_inference_steps=steps,
            guidance_scale=3.0,
            generator=generators,
            output_type="np",
        ).images
        return time.perf_counter() - start, images

    times: dict[int, list[float]] = {interval: [] for interval in intervals}
    drawn: dict[int, np.ndarray] = {}
    for _ in range(rounds):
        for interval in intervals:
            seconds, drawn[interval] = draw(interval)
            times[interval].append(seconds)
    first = intervals[0]
    table = Table("control_interval", "time", "mean change of a pixel (of 255)", "largest")
    for interval in intervals:
        change = 255 * abs(drawn[interval] - drawn[first])
        ratio = statistics.median(times[interval]) / statistics.median(times[first])
        table.add_row(str(interval), f"{ratio:.2f} ×", f"{change.mean():.2f}", f"{change.max():.0f}")
    change = 255 * abs(draw(first, scale=0.0)[1] - drawn[first])
    table.add_row("without the net", "", f"{change.mean():.2f}", f"{change.max():.0f}")
    Console().print(table)


if __name__ == "__main__":
    tyro.cli(main)
