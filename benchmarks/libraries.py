"""Own code beside the library that could replace it: python benchmarks/libraries.py

For each pair, processor time of both, and the largest difference of their results on the same numbers; and the
processor time to import each library, in a new process that has imported numpy and torch.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
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


def pairs() -> Iterator[Pair]:
    """Measure all pairs."""
    random = np.random.default_rng(0)
    genuine = np.arange(40_000) < 400
    scores = random.normal(genuine * 1.5, 1)
    weights = random.integers(0, 3, len(scores)).astype(float)
    rates = PairScores(scores, genuine)

    def sklearn_eer() -> float:
        fpr, tpr, _ = roc_curve(genuine, scores, sample_weight=weights, drop_intermediate=False)
        i = int(np.flatnonzero(fpr >= 1 - tpr)[0])
        before, after = 1 - tpr[i - 1] - fpr[i - 1], fpr[i] - (1 - tpr[i])
        return float(fpr[i - 1] + before / (before + after) * (fpr[i] - fpr[i - 1]))

    difference = abs(rates(weights).eer - sklearn_eer())
    yield Pair(
        "EER, 40,000 pairs", milliseconds(lambda: rates(weights), 10), milliseconds(sklearn_eer, 10), difference
    )

    values = random.normal(0.2, 0.1, 100)

    def scipy_interval() -> tuple[float, float]:
        found = bootstrap((values,), np.mean, n_resamples=1000, method="percentile", rng=0).confidence_interval
        return float(found.low), float(found.high)

    def own_interval() -> tuple[float, float]:
        found = interval(lambda drawn: float(drawn @ values / drawn.sum()), len(values))
        return found.low, found.high

    difference = float(np.abs(np.subtract(own_interval(), scipy_interval())).max())
    yield Pair("interval over 100 people", milliseconds(own_interval, 3), milliseconds(scipy_interval, 3), difference)

    points = ARCFACE_TEMPLATE + random.normal(0, 5, (1000, 5, 2))

    def skimage_transforms() -> np.ndarray:
        return np.stack([SimilarityTransform.from_estimate(each, ARCFACE_TEMPLATE).params[:2] for each in points])

    def own_transforms() -> np.ndarray:
        target = torch.from_numpy(ARCFACE_TEMPLATE).expand(len(points), -1, -1)
        return similarity_transform(torch.from_numpy(points), target).numpy()

    difference = float(np.abs(own_transforms() - skimage_transforms()).max())
    yield Pair(
        "1,000 similarity transforms", milliseconds(own_transforms, 5), milliseconds(skimage_transforms, 1), difference
    )

    scheduler = DDPMScheduler()
    timesteps, parametrisation = torch.arange(1000), Parametrisation.of(scheduler)

    def own_snr() -> torch.Tensor:
        alpha_bar = parametrisation.alpha_bar(timesteps)
        return alpha_bar / (1 - alpha_bar)

    library, own = compute_snr(scheduler, timesteps), own_snr()
    difference = float(((own - library).abs() / library).max())
    yield Pair(
        "1,000 SNRs, relative",
        milliseconds(own_snr, 50),
        milliseconds(lambda: compute_snr(scheduler, timesteps), 50),
        difference,
    )


def import_seconds(module: str) -> float:
    """Processor time of an import in a new process."""
    code = f"import numpy, torch, time; t = time.process_time(); import {module}; print(time.process_time() - t)"
    return float(subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout)


def main() -> None:
    """Print two tables."""
    print("| | own | library | largest difference |\n| --- | --- | --- | --- |")
    for pair in pairs():
        print(f"| {pair.name} | {pair.own:.2f} ms | {pair.library:.2f} ms | {pair.difference:.1g} |")
    print("\n| import | seconds |\n| --- | --- |")
    for module in LIBRARIES:
        print(f"| `{module}` | {import_seconds(module):.2f} |")


if __name__ == "__main__":
    main()
