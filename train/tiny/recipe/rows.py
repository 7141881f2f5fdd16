"""Adapters that differ in nothing but what they are trained with: the rows of docs/results.md.

Each row adds one thing to the row before, and all take as many updates from the same start, on the same samples.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

from idgen.training.config import LossConfig

from . import config
from .adapter import average_stages, denoise, train_adapter, train_reward

LOSSES = ("identity", "contrastive", "preservation")
NAMES = ("denoising", *LOSSES, "full")
"""In their order; the last one has the reward."""


@dataclass(frozen=True)
class Row:
    """One training."""

    name: str
    seed: int

    @property
    def title(self) -> str:
        """Of its report."""
        return f"{self.name}-{self.seed}"

    def folder(self, cache: Path) -> Path:
        """Where its adapter lies; the packaged adapter is a row, too."""
        return cache / "averaged" if self == RECIPE else cache / "rows" / self.title


RECIPE = Row(NAMES[-1], 0)
"""The one that `train.py` trains and packages."""


def all_rows(seeds: int) -> list[Row]:
    """Every row once, the first and the last with more seeds, so that the spread between trainings is seen."""
    more = [Row(name, seed) for seed in range(1, seeds) for name in (NAMES[0], NAMES[-1])]
    return [*(Row(name, 0) for name in NAMES), *more]


def train_row(settings: config.Config, folders: dict[str, Path], row: Row) -> None:
    """Train a row, or go on with it; nothing is done if it is done."""
    folder, settings = row.folder(settings.paths.cache), replace(settings, seed=row.seed)
    if (folder / "done").exists():
        return
    if row.name != NAMES[-1]:
        steps = settings.adapter.steps + settings.reward.steps
        denoise(settings, folders, folder, losses_of(row, settings.adapter.losses), steps)
    else:
        own = {**folders, "adapter": folder / "adapter", "reward": folder / "reward", "averaged": folder}
        for name, stage in (("adapter", train_adapter), ("reward", train_reward), ("averaged", average_stages)):
            if not (own[name] / "done").exists():
                stage(settings, own)
                (own[name] / "done").touch()
    (folder / "done").touch()


def losses_of(row: Row, losses: LossConfig) -> LossConfig:
    """Those of the settings that a row without reward has, the others without weight."""
    has = LOSSES[: NAMES.index(row.name)]
    return replace(losses, weights={**losses.weights, **{name: 0.0 for name in LOSSES if name not in has}})
