"""Loss curves of both trainings, from their logs."""

from __future__ import annotations

import json
from pathlib import Path

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot as plt

PANELS = {"autoencoder": ("l1", "face"), "base": ("v",)}


def draw_curves(cache: Path, file: Path) -> None:
    """Losses over samples, each a running mean over 10 lines of the log, one panel a training.

    Nothing is drawn where these trainings were taken over from the packaged model.
    """
    if not all((cache / name / "losses.jsonl").is_file() for name in PANELS):
        return
    figure, axes = plt.subplots(1, len(PANELS), figsize=(10, 3.2), layout="constrained")
    for axis, (name, losses) in zip(axes, PANELS.items(), strict=True):
        lines = [json.loads(line) for line in (cache / name / "losses.jsonl").read_text().splitlines()]
        samples = np.array([line["samples"] for line in lines]) / 1000
        for loss in losses:
            values = np.array([line[loss] for line in lines])
            window = min(10, len(values))
            smooth = np.convolve(values, np.ones(window) / window, "valid")
            axis.plot(samples[window - 1 :], smooth, label={"v": "v, mean square"}.get(loss, loss))
        axis.set(title=name, xlabel="thousand samples", yscale="log")
        axis.grid(alpha=0.3, which="both")
        axis.legend()
    figure.savefig(file, dpi=110)
