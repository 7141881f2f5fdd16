"""Measure time and memory of training, compared with the usual recipes: python benchmarks/training.py [--help]

Stage one against the plain IP-Adapter-FaceID recipe (VAE and text encoders run at every step, attention processors are
trained), stage two against ReFL as published (the whole picture is decoded, the whole graph is kept). Both sides have
the same UNet, batch, precision, trained parameters and optimizer, and take turns in one process. Weights are random,
so generated pictures show no face, and both sides are given its position.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import repeat
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
import tyro
from accelerate import Accelerator
from recipes import EMBEDDING_DIM, FACE, PlainFaceID, PublishedReFL, Shape, make_batch, make_pipeline
from rich.console import Console
from rich.progress import track
from rich.table import Table
from torch.profiler import ProfilerActivity, profile

from idgen import IdentityAdapter
from idgen.faces import Detection
from idgen.losses import FaceDecoder, FaceEmbedder, Term, make_losses
from idgen.rewards import IdentityReward, WeightedRewards
from idgen.training.base import BaseModel
from idgen.training.batch import Batch
from idgen.training.config import LoopConfig, LossConfig, OptimizerConfig
from idgen.training.denoiser import IdentityDenoiser
from idgen.training.distributed import make_accelerator
from idgen.training.loop import Loop
from idgen.training.methods import ReFLConfig
from idgen.training.reward_backprop import RewardStep
from idgen.training.step import TrainingStep

Side = Callable[[], Any]


class ToldDetector:
    """Detector that always returns the same face."""

    def detect(self, image: np.ndarray) -> list[Detection]:
        points = np.array(FACE) * image.shape[0]
        return [Detection(np.concatenate([points.min(0), points.max(0)]), points, 1.0)]


class Again:
    """Batches that are all the same."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch

    def __iter__(self) -> Iterator[Batch]:
        return repeat(self.batch)

    def state_dict(self) -> dict[str, Any]:
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class Ours:
    """Steps of idgen on one base, each as an update of the loop.

    Args:
        base: See `BaseModel`.
        batch: Of all updates.
        accelerator: Says the precision.
        steps: Denoising steps of the reward's rollout.

    Attributes:
        loop: That of the last step.
    """

    loop: Loop

    def __init__(self, base: BaseModel, batch: Batch, accelerator: Accelerator, steps: int) -> None:
        self.base, self.batch, self.accelerator, self.steps = base, batch, accelerator, steps
        self.adapter = IdentityAdapter.from_unet(base.unet, encoder="random", embedding_dim=EMBEDDING_DIM)
        torch.nn.Module.to(self.adapter, base.unet.device)
        self.adapter.attach(base.unet)
        self.embedder = FaceEmbedder.dlib()
        self.embedder.encoder.to(base.unet.device)

    def denoise(self, **losses: float) -> Side:
        terms = make_losses(LossConfig.only(**losses), self.base.parametrisation)
        return self._updates(
            IdentityDenoiser(self.base, self.adapter, terms, embedder=self.embedder, decoder=self._decoder())
        )

    def reward(self, preservation: float) -> Side:
        config = ReFLConfig(steps=self.steps, last=1, guidance_scale=1.0, preservation=preservation, denoising=0.0)
        identity = Term(IdentityReward(embedder=self.embedder), 1.0, None, "face_found")
        step = RewardStep(
            self.base,
            self.adapter,
            WeightedRewards({"identity": identity}),
            config,
            embedders=[self.embedder],
            decoder=self._decoder(),
            detector=ToldDetector(),
        )
        return self._updates(step)

    def _decoder(self) -> FaceDecoder:
        return FaceDecoder(vae=self.base.pipeline.vae, margin=4, checkpointing=True)

    def _updates(self, step: TrainingStep) -> Side:
        folder = Path(tempfile.gettempdir())  # nothing is written
        loop = Loop(step, Again(self.batch), folder, LoopConfig(), OptimizerConfig(), self.accelerator)
        stream, self.loop = iter(loop.batches), loop
        return lambda: loop.update(stream)


def share_weights(unet: Any) -> Any:
    """Another UNet of the same, frozen, weights: processors set in one are not in the other."""
    with torch.device("meta"):
        other = type(unet).from_config(unet.config)
    other.load_state_dict(unet.state_dict(), assign=True)
    return other


def sides(shape: Shape, stage: int, steps: int) -> dict[str, Side]:
    """Name → one step of training; the first is what the others are compared with."""
    precisions: dict[torch.dtype, Literal["no", "fp16", "bf16"]]
    precisions = {torch.float32: "no", torch.float16: "fp16", torch.bfloat16: "bf16"}
    accelerator = make_accelerator(LoopConfig(mixed_precision=precisions[shape.dtype]), Path(tempfile.gettempdir()))
    pipeline = make_pipeline(shape)
    usual = BaseModel(pipeline, shape.dtype, shape.device)
    batch, photos = make_batch(shape, usual)
    other = type(pipeline)(**{**pipeline.components, "unet": share_weights(pipeline.unet)})
    ours = Ours(BaseModel(other, shape.dtype, shape.device), batch, accelerator, steps)
    if stage == 1:
        plain = PlainFaceID(usual, accelerator)
        return {
            "IP-Adapter-FaceID": lambda: plain.step(batch, photos),
            "idgen": ours.denoise(),
            "idgen, and identity 0.1, contrastive 0.1": ours.denoise(identity=0.1, contrastive=0.1),
        }
    refl = PublishedReFL(usual, accelerator, steps, ours.embedder)
    return {
        "ReFL": lambda: refl.step(batch, photos),
        "idgen": ours.reward(preservation=0.0),
        "idgen, and preservation": ours.reward(preservation=1.0),
    }


def measure_seconds(contestants: dict[str, Side], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of a step in each round; in each, all take turns.

    On a processor, seconds of its time: whatever else runs on the machine does not count.
    """
    clock = time.perf_counter if device.type == "cuda" else time.process_time
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for i in track(range(rounds + 1), console=Console(stderr=True)):
        for name, step in contestants.items():
            _wait(device)
            start = clock()
            step()
            _wait(device)
            if i:  # the first round warms up
                seconds[name].append(clock() - start)
    return seconds


def measure_memory(step: Side, device: torch.device) -> float:
    """GiB that a step needs on top of what is there before it: weights and the optimizer's state are not counted.

    On a processor, the allocations of torch, by its profiler.
    """
    if device.type == "cuda":
        before = torch.cuda.memory_allocated(device)
        torch.cuda.reset_peak_memory_stats(device)
        step()
        return (torch.cuda.max_memory_allocated(device) - before) / 2**30
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        step()
    results: Any = profiler.profiler
    events = [event for event in results.kineto_results.events() if event.name() == "[memory]"]
    changes = [event.nbytes() for event in sorted(events, key=lambda event: event.start_ns())]
    return float(np.cumsum(changes).max()) / 2**30


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def main(
    stage: tuple[Literal[1, 2], ...] = (1, 2),
    model: Literal["sd15", "sdxl"] = "sd15",
    width: float | None = None,
    side: int | None = None,
    batch: int | None = None,
    steps: int = 20,
    rounds: int = 5,
) -> None:
    """Print one table for each stage.

    Args:
        stage: Denoising, reward.
        model: Which sizes.
        width: Share of their channels; a half on a processor, all on a GPU if not given.
        side: Picture's side in pixels; 512 for SD1.5 and 1024 for SDXL if not given.
        batch: Pictures at once; 1 on a processor, 4 on a GPU if not given.
        steps: Denoising steps of a rollout.
        rounds: How often everything is timed.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    gpu = device.type == "cuda"
    if not gpu:
        torch.set_num_threads(1)  # threads that wait for each other on a busy machine count as busy
    shape = Shape(
        model,
        width or (1.0 if gpu else 0.5),
        side or (512 if model == "sd15" else 1024),
        batch or (4 if gpu else 1),
        torch.bfloat16 if gpu else torch.float32,
        device,
    )
    for number in stage:
        contestants = sides(shape, number, steps)
        seconds = measure_seconds(contestants, rounds, device)
        memory = {name: measure_memory(step, device) for name, step in contestants.items()}
        kind = str(shape.dtype).removeprefix("torch.")
        title = f"{model}, {shape.width} of its width, {shape.side} px, batch {shape.batch}, {device.type}, {kind}"
        table = Table(f"stage {number}", "samples/s", "speed", "GiB", "memory", title=title)
        first = next(iter(contestants))
        for name in contestants:
            ratio = statistics.median(a / b for a, b in zip(seconds[first], seconds[name], strict=True))
            table.add_row(
                name,
                f"{shape.batch / statistics.median(seconds[name]):.3f}",
                f"{ratio:.2f} ×",
                f"{memory[name]:.2f}",
                f"{memory[name] / memory[first]:.2f} ×",
            )
        Console(width=119).print(table)


if __name__ == "__main__":
    tyro.cli(main)
