"""The loop of the autoencoder's and the base's training: budgets of time and samples, checkpoints, a log of losses."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from tqdm import tqdm

SAVE_EVERY = 180.0
"""Seconds between checkpoints."""
LOG_EVERY = 20
"""Steps that are averaged in one line of the log."""


class Stateful(Protocol):
    """A part of a checkpoint: a module, an optimizer or an average."""

    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state_dict: dict[str, Any], /) -> Any: ...


@dataclass
class Spent:
    """How much of its budget a training has used, over all restarts."""

    steps: int = 0
    samples: int = 0
    seconds: float = 0.0


class Run:
    """One training in a folder: `state.pt` (the last checkpoint) and `losses.jsonl`.

    Args:
        folder: Of both files.
        parts: Name -> part that is saved and restored.
        minutes: Budget of time.
        samples: Budget of samples; the run ends at the first of the two.
        batch: Samples a step.
    """

    def __init__(self, folder: Path, parts: dict[str, Stateful], minutes: float, samples: int, batch: int) -> None:
        self.folder, self.parts, self.batch = folder, parts, batch
        self.budget = (minutes * 60, samples)
        self.spent = Spent()
        self.file, self.log = folder / "state.pt", folder / "losses.jsonl"
        if self.file.exists():
            state = torch.load(self.file, map_location="cpu", weights_only=True)
            self.spent = Spent(**state.pop("spent"))
            for name, part in parts.items():
                part.load_state_dict(state[name])

    @property
    def progress(self) -> float:
        """Share of the budget that is used, from 0 to 1."""
        seconds, samples = self.budget
        return min(1.0, max(self.spent.seconds / seconds, self.spent.samples / samples))

    def save(self) -> None:
        """Write the checkpoint to a temporary file that then replaces the last one."""
        states = {name: part.state_dict() for name, part in self.parts.items()}
        temporary = self.file.with_suffix(".tmp")
        torch.save({"spent": asdict(self.spent), **states}, temporary)
        os.replace(temporary, self.file)

    def train(self, step: Callable[[int, float], dict[str, float | torch.Tensor]]) -> None:
        """Call `step(number, progress)`, which returns the losses to log, until the budget is used."""
        stop = _Stop()
        losses: list[dict[str, float | torch.Tensor]] = []
        last_save, start = time.monotonic(), time.monotonic()
        with tqdm(total=100, initial=100 * self.progress, desc=self.folder.name, mininterval=20) as bar:
            while self.progress < 1 and not stop.asked:
                losses.append(step(self.spent.steps, self.progress))
                now = time.monotonic()
                self.spent.seconds += now - start
                start = now
                self.spent.steps += 1
                self.spent.samples += self.batch
                if len(losses) == LOG_EVERY:
                    bar.set_postfix(self._log(losses), refresh=False)
                    losses.clear()
                bar.update(100 * self.progress - bar.n)
                if now - last_save > SAVE_EVERY:
                    self.save()
                    last_save = now
        if losses:
            self._log(losses)
        self.save()
        if stop.asked:
            raise SystemExit(
                f"{self.folder.name}: stopped at {self.progress:.0%}; the same command continues from here."
            )

    def _log(self, losses: list[dict[str, float | torch.Tensor]]) -> dict[str, str]:
        means = {key: sum(float(row[key]) for row in losses) / len(losses) for key in losses[0]}
        with self.log.open("a") as file:
            file.write(json.dumps({**asdict(self.spent), **means}) + "\n")
        return {key: f"{value:.3f}" for key, value in means.items()}


class _Stop:
    """Remembers the first SIGTERM or Ctrl-C, so that the loop stops after the step that is running."""

    def __init__(self) -> None:
        self.asked = False
        for name in (signal.SIGTERM, signal.SIGINT):
            signal.signal(name, self._ask)

    def _ask(self, number: int, _: Any) -> None:
        self.asked = True
        signal.signal(number, signal.SIG_DFL)


def random_for(seed: int, step: int, where: torch.device | None = None) -> torch.Generator:
    """Random numbers of one step, on the CPU or another device; the same after a restart."""
    return torch.Generator(where or "cpu").manual_seed(seed * 1_000_003 + step)


def below(limit: int, count: int, random: torch.Generator) -> torch.Tensor:
    """`count` integers from 0 to `limit` - 1, on the generator's device."""
    return torch.randint(limit, (count,), generator=random, device=random.device)


def learning_rate(optimizer: torch.optim.Optimizer, peak: float, step: int, warmup: int, progress: float) -> None:
    """Linear warm-up in steps, then linear decay to zero over the whole budget."""
    for group in optimizer.param_groups:
        group["lr"] = peak * min(1.0, (step + 1) / warmup) * (1.02 - progress)
