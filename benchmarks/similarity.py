"""Measure the cosines of a face encoder on the people of a set, and the values of losses for them.

    python benchmarks/similarity.py shards/ --output src/idgen/faces/dlib-resnet-v1.json

The first table is `EncoderStatistics`, as stored in the package's file. The second one has, for each loss, the mean
over right pairs (two photos of one person) and wrong pairs (a stranger's photo in place of the generated face), and
the share of wrong pairs with a gradient of a tenth of the steepest or more; with settings for this encoder, and with
constants that were published for others.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import tyro
from rich.console import Console
from rich.table import Table

from idgen.data.bank import IdentityBank
from idgen.data.statistics import measure_set
from idgen.faces import EncoderStatistics
from idgen.losses import (
    Bank,
    ContrastiveLoss,
    LossSettings,
    MannWhitneyLoss,
    ThresholdLoss,
    TripletLoss,
    identity_loss,
)

PUBLISHED = {"temperature": 0.1, "positive_threshold": 0.9, "negative_threshold": 0.5, "margin": 1.0, "hinge": 0.75}
Loss = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def losses(settings: LossSettings, persons: torch.Tensor, bank: Bank) -> dict[str, Loss]:
    """Generated faces and targets, (samples, dim) each → (samples,)."""
    contrastive, mann_whitney = (kind(temperature=settings.temperature) for kind in (ContrastiveLoss, MannWhitneyLoss))
    threshold = ThresholdLoss(
        positive_threshold=settings.positive_threshold, negative_threshold=settings.negative_threshold
    )
    triplet = TripletLoss(settings.margin)
    return {
        "identity": identity_loss,
        "contrastive": lambda g, t: contrastive(g, t, persons, bank),
        "mann_whitney": lambda g, t: mann_whitney(g, t, persons, bank),
        "threshold": lambda g, t: threshold(g, t, persons, bank),
        "triplet": lambda g, t: triplet(g, t, bank.embeds[: len(g)]),
        "reward (hinge)": lambda g, t: torch.relu(settings.hinge - torch.cosine_similarity(g, t)),
    }


def pairs(shards: str, samples: int, negatives: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, Bank]:
    """Two photos each of some people, their numbers, and one photo each of others."""
    bank = IdentityBank(shards)
    random = np.random.default_rng(0)
    several = random.permutation(np.flatnonzero(bank.counts > 1))[:samples]
    faces = [bank.starts[i] + random.choice(bank.counts[i], 2, replace=False) for i in several]
    embeds = torch.from_numpy(bank.embeddings[np.concatenate(faces)]).unflatten(0, (-1, 2))
    others = random.permutation(np.setdiff1d(np.arange(len(bank)), several))[:negatives]
    strangers = Bank(torch.from_numpy(bank.embeddings[bank.starts[others]]), torch.from_numpy(others))
    return embeds[:, 0], embeds[:, 1], torch.from_numpy(several), strangers


def row(loss: Loss, first: torch.Tensor, second: torch.Tensor) -> list[str]:
    """The mean of right pairs, of wrong ones, and the share of these with a gradient."""
    right = loss(first, second).mean()
    target = second.roll(1, 0).requires_grad_(True)  # another person's
    values = loss(first, target)
    (gradient,) = torch.autograd.grad(values.sum(), target)
    # of the cosine: an embedding's own gradient vanishes where it is longer or the cosine nearer to 1
    unit = torch.nn.functional.normalize(target.detach(), dim=-1)
    sine = (1 - (unit * torch.nn.functional.normalize(first, dim=-1)).sum(-1).square()).sqrt()
    slope = gradient.norm(dim=-1) * target.detach().norm(dim=-1) / sine
    return [f"{right:.3f}", f"{values.mean():.3f}", f"{(slope > 0.1 * slope.max()).double().mean():.1%}"]


def main(
    shards: tyro.conf.Positional[str], output: Path | None = None, samples: int = 150, negatives: int = 1024
) -> None:
    """Measure and print.

    Args:
        shards: A prepared set; its training split is read.
        output: Also write the statistics to this file.
        samples: Right and wrong pairs for the second table.
        negatives: Strangers that losses compare each of them with.
    """
    statistics = measure_set(shards)
    if output is not None:
        statistics.save(output)
    console = Console()
    console.print(_figures(statistics))
    first, second, persons, bank = pairs(shards, samples, negatives)
    fitting = LossSettings.fitting(statistics)
    console.print(fitting)
    table = Table("loss", "right", "wrong", "with a gradient", "published: right", "wrong", "with a gradient")
    published = losses(replace(fitting, **PUBLISHED), persons, bank)
    for name, loss in losses(fitting, persons, bank).items():
        table.add_row(name, *row(loss, first, second), *row(published[name], first, second))
    console.print(table)


def _figures(statistics: EncoderStatistics) -> Table:
    table = Table("", statistics.encoder)
    table.add_row("people, photos", f"{statistics.people:,}, {statistics.photos:,}")
    for name in ("genuine", "impostor"):
        scores = getattr(statistics, name)
        table.add_row(name, f"{scores.mean:.3f} ± {scores.deviation:.3f}, median {scores.quantile(0.5):.3f}")
    for rate in (1e-2, 1e-3, 1e-4):
        threshold = statistics.threshold(rate)
        missed = statistics.false_non_match_rate(threshold)
        table.add_row(f"threshold at a false-match rate of {rate:g}", f"{threshold:.3f} (misses {missed:.1%})")
    rate, threshold = statistics.equal_error
    table.add_row("equal error", f"{rate:.1%} at {threshold:.3f}")
    table.add_row("length of a raw embedding", f"{statistics.length:.2f}")
    return table


if __name__ == "__main__":
    tyro.cli(main)
