"""The defaults fit the default encoder: right pairs have little loss, and most wrong ones have a gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from idgen.faces import DLIB_TEMPLATE, EncoderStatistics, ScoreDistribution
from idgen.losses import (
    Bank,
    ContrastiveLoss,
    FaceEmbedder,
    LossConfig,
    LossSettings,
    MannWhitneyLoss,
    Parametrisation,
    RobustContrastiveLoss,
    ThresholdLoss,
    TripletLoss,
    make_losses,
)
from idgen.losses.settings import DEFAULTS
from idgen.rewards import IdentityReward, RewardsConfig
from tests.components import seeded

DLIB = EncoderStatistics.of("dlib-resnet-v1")
SAMPLES, NEGATIVES = 64, LossConfig().negatives
Loss = Callable[[torch.Tensor], torch.Tensor]
"""Cosines of generated faces to their targets, (samples,) → (samples,)."""


def cosines(of: ScoreDistribution, *shape: int, seed: int) -> torch.Tensor:
    """Drawn from a distribution of scores."""
    level = torch.rand(shape, generator=seeded(seed), dtype=torch.float64).clamp(1e-6, 1 - 1e-6)
    return torch.from_numpy(np.asarray(of.quantile(level.numpy())))


def at(cosines: torch.Tensor, directions: torch.Tensor) -> torch.Tensor:
    """Embeddings at these cosines to directions of unit length."""
    ones = torch.ones_like(directions)
    side = ones - (ones * directions).sum(-1, keepdim=True) * directions
    side = side / side.norm(dim=-1, keepdim=True)
    return cosines[..., None] * directions + (1 - cosines.square()).sqrt()[..., None] * side


def losses(settings: LossSettings) -> dict[str, Loss]:
    """Every loss and reward with such settings; the generated faces are as like to strangers as strangers are."""
    threshold = ThresholdLoss(
        positive_threshold=settings.positive_threshold, negative_threshold=settings.negative_threshold
    )
    generated = torch.tensor([0.6, 0.8], dtype=torch.float64).expand(SAMPLES, 2)
    strangers = at(cosines(DLIB.impostor, SAMPLES, NEGATIVES, seed=2), generated[:, None].expand(-1, NEGATIVES, -1))
    persons = torch.arange(SAMPLES)
    bank = Bank(strangers, SAMPLES + torch.arange(NEGATIVES).expand(SAMPLES, -1))
    torch.manual_seed(0)
    encoder = nn.Sequential(nn.Conv2d(3, 6, 3, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(54, 5)).double()
    embedder = FaceEmbedder(
        name="test", encoder=encoder.requires_grad_(False), template=DLIB_TEMPLATE * 8 / 150, size=8
    )
    pictures = torch.rand(SAMPLES, 3, 16, 16, generator=seeded(3), dtype=torch.float64)
    landmarks = torch.from_numpy(DLIB_TEMPLATE * 16 / 150).expand(SAMPLES, -1, -1)
    drawn = torch.nn.functional.normalize(embedder(pictures, landmarks), dim=-1)
    reward = IdentityReward(embedder=embedder, hinge=settings.hinge)
    contrastive, mann_whitney = (kind(temperature=settings.temperature) for kind in (ContrastiveLoss, MannWhitneyLoss))
    robust = RobustContrastiveLoss(robustness=settings.robustness, margin=settings.margin)
    return {
        "robust": lambda s: robust(generated, at(s, generated), persons, bank),
        "contrastive": lambda s: contrastive(generated, at(s, generated), persons, bank),
        "mann_whitney": lambda s: mann_whitney(generated, at(s, generated), persons, bank),
        "threshold": lambda s: threshold(generated, at(s, generated), persons, bank),
        "triplet": lambda s: TripletLoss(settings.margin)(generated, at(s, generated), strangers[:, 0]),
        "reward": lambda s: settings.hinge - reward(pictures, landmarks, at(s, drawn)),
    }


def fits(loss: Loss) -> bool:
    """Right pairs lose a fifth of what wrong ones lose at most, and of the wrong ones most have a gradient: a tenth of
    the steepest or more."""
    right = loss(cosines(DLIB.genuine, SAMPLES, seed=1)).mean()
    positive = cosines(DLIB.impostor, SAMPLES, seed=1).requires_grad_(True)
    wrong = loss(positive)
    (slopes,) = torch.autograd.grad(wrong.sum(), positive)
    return bool(right < wrong.mean() / 5 and (slopes < 0.1 * slopes.min()).double().mean() > 0.8)


@pytest.mark.parametrize("name", losses(DEFAULTS))
def test_the_defaults_fit_the_default_encoder(name: str) -> None:
    assert fits(losses(DEFAULTS)[name])


@pytest.mark.parametrize(
    ("name", "published"),
    [
        ("contrastive", {"temperature": 0.1}),
        ("mann_whitney", {"temperature": 0.1}),
        ("threshold", {"positive_threshold": 0.9, "negative_threshold": 0.5}),
        ("triplet", {"margin": 1.0}),
        ("reward", {"hinge": 0.75}),
    ],
)
def test_constants_for_other_encoders_do_not(name: str, published: dict[str, float]) -> None:
    assert not fits(losses(replace(DEFAULTS, **published))[name])


def test_every_loss_has_them() -> None:
    """The classes by themselves, and a configuration that names nothing."""
    settings = DEFAULTS.temperature, DEFAULTS.positive_threshold, DEFAULTS.negative_threshold, DEFAULTS.margin
    alone = ThresholdLoss()
    assert ContrastiveLoss().temperature == MannWhitneyLoss().temperature == DEFAULTS.temperature
    assert (alone.positive_threshold, alone.negative_threshold) == settings[1:3]
    assert TripletLoss().margin == DEFAULTS.margin
    names = ("contrastive", "mann_whitney", "threshold", "triplet")
    config = LossConfig.only(**dict.fromkeys(names, 1.0), prior_dir="pictures")
    terms = make_losses(config, Parametrisation(torch.linspace(0.99, 0.1, 10))).terms
    assert [terms[name].function for name in names] == [
        ContrastiveLoss(),
        MannWhitneyLoss(),
        ThresholdLoss(),
        TripletLoss(),
    ]


def test_another_encoder_has_others_and_what_is_given_stays() -> None:
    """One whose strangers lie about 0, as ArcFace's."""
    random = np.random.default_rng(0)
    genuine, impostor = (ScoreDistribution.of(random.normal(*of, 300_000)) for of in ((0.6, 0.12), (0.02, 0.06)))
    other = LossSettings.fitting(replace(DLIB, encoder="other", genuine=genuine, impostor=impostor))
    assert other.margin == pytest.approx(0.29, abs=0.01)
    assert other.hinge == pytest.approx(0.6, abs=0.01)
    assert other.positive_threshold == pytest.approx(0.02 + 3.72 * 0.06, abs=0.02)
    losses, rewards = LossConfig(temperature=0.07).fitted(other), RewardsConfig().fitted(other)
    assert (losses.temperature, losses.margin, rewards.hinge) == (0.07, other.margin, other.hinge)
    assert RewardsConfig(hinge=1.0).fitted(other).hinge == 1


def test_statistics_are_needed_where_a_setting_in_use_follows_from_them() -> None:
    names = ("contrastive", "mann_whitney", "threshold", "triplet")
    for name in names:
        assert LossConfig.only(**{name: 1.0}, prior_dir="pictures").needs_statistics
    assert not LossConfig.only(identity=1.0).needs_statistics
    assert not LossConfig.only(contrastive=1.0, temperature=0.1).needs_statistics
    assert RewardsConfig().needs_statistics
    assert not RewardsConfig(hinge=1.0).needs_statistics
    assert not RewardsConfig.only(structure=1.0, structure_scorer="scorer").needs_statistics
