"""Gradient accumulation: an update depends on its samples, not on how they are divided into passes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import Accelerator

from idgen.errors import TrainingError
from idgen.training.batch import Batch
from idgen.training.config import LoopConfig, OptimizerConfig
from idgen.training.distributed import make_accelerator
from idgen.training.loop import Loop
from tests.components import ONE_LEVEL

from .runs import RandomPeople, make_step


class OneByOne(RandomPeople):
    """A stream of samples, each determined by its own number."""

    def __iter__(self) -> Iterator[Batch]:
        while True:
            first, self.number = self.number, self.number + self.size
            samples = [RandomPeople(1).make(first + i) for i in range(self.size)]
            yield join([replace(sample, latents=sample.latents[..., :4, :4]) for sample in samples])


def join(batches: list[Batch]) -> Batch:
    parts: dict[str, Any] = {}
    for field in fields(Batch):
        values = [getattr(batch, field.name) for batch in batches]
        if isinstance(values[0], torch.Tensor):
            parts[field.name] = torch.cat(values)
        elif isinstance(values[0], tuple):
            parts[field.name] = tuple(value for each in values for value in each)
        else:
            parts[field.name] = values[0]
    return Batch(**parts)


def run(folder: Path, passes: int, samples: int, updates: int) -> tuple[list[torch.Tensor], list[float]]:
    """The weights after a run, and the gradient norm of each update."""
    config = LoopConfig(
        max_train_steps=updates,
        train_batch_size=samples,
        gradient_accumulation_steps=passes,
        checkpointing_steps=updates,
    )
    step = make_step(fusion=True, noise_offset=0.1, unet=ONE_LEVEL)
    optimizer = OptimizerConfig(learning_rate=1e-3, lr_warmup_steps=5)
    loop = Loop(step, OneByOne(samples), folder, config, optimizer, make_accelerator(config, folder))
    loop.run()
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [weight.detach() for weight in step.parameters()], [row["norm"] for row in rows]


def test_accumulation_equals_a_larger_batch(tmp_path: Path) -> None:
    start = [weight.detach().clone() for weight in make_step(unet=ONE_LEVEL).parameters()]
    whole, whole_norms = run(tmp_path / "whole", 1, 8, 20)
    passes, norms = run(tmp_path / "passes", 4, 2, 20)
    assert norms == pytest.approx(whole_norms, rel=1e-3)
    moved = torch.cat([(a - b).flatten() for a, b in zip(whole, start, strict=True)]).norm()
    apart = torch.cat([(a - b).flatten() for a, b in zip(whole, passes, strict=True)]).norm()
    assert apart < 1e-3 * moved


def test_an_accelerator_with_another_accumulation_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = LoopConfig(gradient_accumulation_steps=4)
    with pytest.raises(TrainingError, match=r"accumulation_steps=4, .* configured for 1:"):
        Loop(make_step(), RandomPeople(2), tmp_path, config, OptimizerConfig(), Accelerator(cpu=True))
    monkeypatch.setenv("ACCELERATE_GRADIENT_ACCUMULATION_STEPS", "2")  # as `accelerate launch` sets it
    with pytest.raises(TrainingError, match=r"accumulation_steps=4, .* configured for 2:"):
        make_accelerator(config, tmp_path)
