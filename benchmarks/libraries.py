"""Own code beside the library that could replace it: python benchmarks/libraries.py

For each pair, processor time of both, and the largest difference of their results on the same numbers; and the
processor time to import each library, in a new process that has imported numpy and torch.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import torch
from diffusers import DDPMScheduler
from diffusers.training_utils import compute_snr
from scipy.stats import bootstrap
from skimage.transform import SimilarityTransform
from sklearn.metrics import roc_curve

from idgen.evaluation import interval
from idgen.evaluation.error_rates import PairScores
from idgen.faces import ARCFACE_TEMPLATE, similarity_transform
from idgen.losses import Parametrisation

LIBRARIES = (
    "sklearn.metrics",
    "scipy.stats",
    "skimage.transform._geometric",
    "joblib",
    "pydantic",
    "huggingface_hub.repocard",
)


class Pair(NamedTuple):
    """A line of the table: what is computed, milliseconds of both, and the largest difference."""

    name: str
    own: float
    library: float
    difference: float


def milliseconds(function: Callable[[], object], times: int) -> float:
    """Processor time of one call, the first one excluded."""
    function()
    start = time.process_time()
    for _ in range(times):
        function()
    return (time.process_time() - start) / times * 1000


def eer(random: np.random.Generator) -> Pair:
    """The equal error rate of weighted pairs."""
    genuine = np.arange(40_000) < 400
    scores = random.normal(genuine * 1.5, 1)
    weights = random.integers(0, 3, len(scores)).astype(float)
    rates = PairScores(scores, genuine)

    def library() -> float:
        fpr, tpr, _ = roc_curve(genuine, scores, sample_weight=weights, drop_intermediate=False)
        i = int(np.flatnonzero(fpr >= 1 - tpr)[0])
        before, after = 1 - tpr[i - 1] - fpr[i - 1], fpr[i] - (1 - tpr[i])
        return float(fpr[i - 1] + before / (before + after) * (fpr[i] - fpr[i - 1]))

    difference = abs(rates(weights).eer - library())
    return Pair("EER, 40,000 pairs", milliseconds(lambda: rates(weights), 10), milliseconds(library, 10), difference)


def intervals(random: np.random.Generator) -> Pair:
    """The interval of a mean."""
    values = random.normal(0.2, 0.1, 100)

    def library() -> tuple[float, float]:
        found = bootstrap((values,), np.mean, n_resamples=1000, method="percentile", rng=0).confidence_interval
        return float(found.low), float(found.high)

    def own() -> tuple[float, float]:
        found = interval(lambda drawn: float(drawn @ values / drawn.sum()), len(values))
        return found.low, found.high

    difference = float(np.abs(np.subtract(own(), library())).max())
    return Pair("interval over 100 people", milliseconds(own, 3), milliseconds(library, 3), difference)


def transforms(random: np.random.Generator) -> Pair:
    """Similarity transforms to the template of face encoders."""
    points = ARCFACE_TEMPLATE + random.normal(0, 5, (1000, 5, 2))

    def library() -> np.ndarray:
        return np.stack([SimilarityTransform.from_estimate(each, ARCFACE_TEMPLATE).params[:2] for each in points])

    def own() -> np.ndarray:
        target = torch.from_numpy(ARCFACE_TEMPLATE).expand(len(points), -1, -1)
        return similarity_transform(torch.from_numpy(points), target).numpy()

    difference = float(np.abs(own() - library()).max())
    return Pair("1,000 similarity transforms", milliseconds(own, 5), milliseconds(library, 1), difference)


def snr(_: np.random.Generator) -> Pair:
    """The signal-to-noise ratios of a schedule."""
    scheduler = DDPMScheduler()
    timesteps, parametrisation = torch.arange(1000), Parametrisation.of(scheduler)

    def library() -> torch.Tensor:
        return compute_snr(scheduler, timesteps)

    def own() -> torch.Tensor:
        alpha_bar = parametrisation.alpha_bar(timesteps)
        return alpha_bar / (1 - alpha_bar)

    difference = float(((own() - library()).abs() / library()).max())
    return Pair("1,000 SNRs, relative", milliseconds(own, 50), milliseconds(library, 50), difference)


def import_seconds(module: str) -> float:
    """Processor time of an import in a new process."""
    code = f"import numpy, torch, time; t = time.process_time(); import {module}; print(time.process_time() - t)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Print two tables."""
    print("| | own | library | largest difference |\n| --- | --- | --- | --- |")
    random = np.random.default_rng(0)
    for measure in (eer, intervals, transforms, snr):
        pair = measure(random)
        print(f"| {pair.name} | {pair.own:.2f} ms | {pair.library:.2f} ms | {pair.difference:.1g} |")
    print("\n| import | seconds |\n| --- | --- |")
    for module in LIBRARIES:
        print(f"| `{module}` | {import_seconds(module):.2f} |")


if __name__ == "__main__":
    main()
