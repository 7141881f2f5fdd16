"""Training updates that run on a GPU without Python: recorded once as a CUDA graph, then replayed."""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import torch
from torch import nn
from tqdm import tqdm

from ..device import device

Losses = dict[str, torch.Tensor]
WARM_UP = 3
"""Updates before the recording, in which libraries choose their kernels and optimizers make their states."""
EVERY = 20
"""Updates between two looks at the clock; a graph is queued faster than it runs."""
WARM = 0.05
"""Share of a training in which the learning rate rises."""


class Captured:
    """An update as a CUDA graph; on a CPU, the update itself.

    An update may not wait for the device nor copy from the CPU: all its numbers, random ones too, are made on the
    device.

    Args:
        update: One update; returns losses for the log.
        pool: Another captured update with whose graph memory is shared. They must not run at the same time.
    """

    def __init__(self, update: Callable[[], Losses], pool: Captured | None = None) -> None:
        self._update, self._graph = update, None
        if not torch.cuda.is_available():
            return
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                update()
        torch.cuda.current_stream().wait_stream(side)
        self._graph = torch.cuda.CUDAGraph()
        memory = pool._graph.pool() if pool is not None and pool._graph is not None else None
        with torch.cuda.graph(self._graph, pool=memory):
            self._losses = update()

    def __call__(self) -> Losses:
        if self._graph is None:
            return self._update()
        self._graph.replay()
        return self._losses


class Trained:
    """Weights with their optimizer and their average, all on the device.

    Args:
        weights: What is trained.
        decay: Of the exponential moving average.
        betas: Of AdamW.
    """

    def __init__(
        self, weights: Iterable[nn.Parameter], decay: float, betas: tuple[float, float] = (0.9, 0.98)
    ) -> None:
        self.weights: Sequence[nn.Parameter] = [weight for weight in weights if weight.requires_grad]
        self.decay, on_gpu = decay, device().type == "cuda"
        self.rate = torch.zeros((), device=device())
        self.optimizer = torch.optim.AdamW(
            self.weights, self.rate if on_gpu else 0.0, betas, weight_decay=0.01, fused=True, capturable=on_gpu
        )
        self.average = [weight.detach().clone() for weight in self.weights]

    def set_rate(self, rate: float) -> None:
        """Set the learning rate of the next updates."""
        self.rate.fill_(rate)
        if device().type == "cpu":
            for group in self.optimizer.param_groups:
                group["lr"] = rate

    def step(self, loss: torch.Tensor) -> torch.Tensor:
        """One update; returns the norm of the gradient, which is clipped to 1."""
        self.optimizer.zero_grad()
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self.weights, 1.0)
        self.optimizer.step()
        torch._foreach_lerp_(self.average, [weight.detach() for weight in self.weights], 1 - self.decay)
        return norm

    @torch.no_grad()
    def use_average(self) -> None:
        """Replace the weights by their average."""
        for weight, average in zip(self.weights, self.average, strict=True):
            weight.copy_(average)


def spend(
    seconds: float, name: str, updates: Sequence[Captured], trained: Trained, peak: float, log: Path, most: int = 0
) -> None:
    """Repeat updates, one after the other, for some seconds: linear warm-up of the learning rate, times a cosine
    to zero.

    Args:
        seconds: Budget.
        name: Of the progress bar and in the log.
        updates: They take turns.
        trained: Whose learning rate is set.
        peak: Highest learning rate.
        log: File of the losses, a line of JSON every `EVERY` updates.
        most: End after so many updates, for a trial; 0 for no limit.
    """
    start, number = time.monotonic(), 0
    losses: Losses = {}
    with tqdm(total=100, desc=name, mininterval=5) as bar:
        while (spent := time.monotonic() - start) < seconds and not (most and number >= most):
            progress = spent / seconds
            warm = min(1.0, (progress + 1e-3) / WARM)
            trained.set_rate(peak * warm * 0.5 * (1 + math.cos(progress * math.pi)))
            for _ in range(min(EVERY, most or EVERY)):
                losses = updates[number % len(updates)]()
                number += 1
            told = {key: float(value) for key, value in losses.items()}  # waits for the device
            with log.open("a") as file:
                file.write(json.dumps({"stage": name, "updates": number, "seconds": spent, **told}) + "\n")
            bar.update(100 * progress - bar.n)
            bar.set_postfix(told, refresh=False)
    last = ", ".join(f"{key} {float(value):.4f}" for key, value in losses.items())
    print(f"{name}: {number} updates, {number / (time.monotonic() - start):.1f} a second; {last}", flush=True)
