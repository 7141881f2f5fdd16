"""What the terms of a loss came to in one update, over all passes and processes."""

from __future__ import annotations

import torch
from accelerate import Accelerator

from ..losses import TermLog, Weighted

PARTS = ("sum", "samples", "invalid")


class Totals:
    """Sums of what each term did, on one device, so that passes and processes can be added.

    Args:
        accelerator: Of the run.
    """

    def __init__(self, accelerator: Accelerator) -> None:
        self.accelerator = accelerator
        self.sums: dict[str, torch.Tensor] = {}

    def add(self, found: Weighted) -> None:
        """Add one pass."""
        size = torch.tensor(float(len(found.values)), device=found.values.device)
        logs = {**found.terms, "loss": TermLog(found.values.detach().sum(), size, torch.zeros_like(size))}
        for name, log in logs.items():
            for part in PARTS:
                value = getattr(log, part).to(self.accelerator.device, torch.float32)
                self.sums[f"{name}/{part}"] = self.sums.get(f"{name}/{part}", torch.zeros_like(value)) + value

    def means(self) -> dict[str, float]:
        """Means by term, and the share of the samples that had no face. All processes call it together."""
        names = sorted(self.sums)
        summed = self.accelerator.reduce(torch.stack([self.sums[name] for name in names]), "sum")
        sums = dict(zip(names, summed.tolist(), strict=True))  # pyright: ignore[reportAttributeAccessIssue]
        means = {}
        for name in {name.rsplit("/", 1)[0] for name in names}:
            if sums[f"{name}/samples"]:
                means[name] = sums[f"{name}/sum"] / sums[f"{name}/samples"]
            if sums[f"{name}/invalid"]:
                counted = sums[f"{name}/samples"] + sums[f"{name}/invalid"]
                means[f"{name}/no_face"] = sums[f"{name}/invalid"] / counted
        return {name: means[name] for name in sorted(means)}
