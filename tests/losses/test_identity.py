"""Losses on embeddings against their formulas, written out with plain numbers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch

from idgen.errors import LossError
from idgen.losses import (
    Bank,
    ContrastiveLoss,
    ErrorRateLoss,
    LearnedSimilarity,
    MannWhitneyLoss,
    MixedContrastiveLoss,
    OrthogonalityLoss,
    RobustContrastiveLoss,
    ThresholdLoss,
    TripletLoss,
    WithinGroupLoss,
    identity_loss,
    make_contrastive,
)
from idgen.losses.negatives import within_whiskers

from .inputs import normal

GENERATED, TARGET, PRIOR = (normal(3, 8, seed=seed) for seed in (1, 2, 3))
PERSONS = torch.tensor([3, 8, 5])
BANK = Bank(normal(6, 8, seed=4), torch.tensor([3, 1, 8, 8, 2, 5]))
BANK_LOSSES = (ContrastiveLoss(), ThresholdLoss(), MannWhitneyLoss(), ErrorRateLoss(), RobustContrastiveLoss())


def cos(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(a @ b / math.sqrt(float(a @ a) * float(b @ b)))


def positives(generated: torch.Tensor = GENERATED, target: torch.Tensor = TARGET) -> list[float]:
    return [cos(g, t) for g, t in zip(generated, target, strict=True)]


def others(i: int, part: slice = slice(None)) -> list[float]:
    """Cosines of a sample with everybody in the bank who is somebody else."""
    rows = zip(BANK.embeds, BANK.persons, strict=True)
    return [cos(GENERATED[i, part], e[part]) for e, person in rows if person != PERSONS[i]]


def test_identity() -> None:
    assert identity_loss(GENERATED, TARGET).tolist() == pytest.approx([1 - s for s in positives()])
    assert identity_loss(GENERATED, 3 * GENERATED).tolist() == pytest.approx([0] * 3)
    assert identity_loss(GENERATED.half(), TARGET.half()).dtype == torch.float32


@pytest.mark.parametrize("margin", [0.0, 0.2, 1.0])
def test_triplet(margin: float) -> None:
    expected = [
        max(0.0, (1 - p) - (1 - n) + margin) for p, n in zip(positives(), positives(GENERATED, PRIOR), strict=True)
    ]
    assert TripletLoss(margin)(GENERATED, TARGET, PRIOR).tolist() == pytest.approx(expected)
    with pytest.raises(LossError, match="margin"):
        TripletLoss(-1)


def info_nce(positive: float, negatives: list[float], temperature: float) -> float:
    exponentials = [math.exp(s / temperature) for s in (positive, *negatives)]
    return -math.log(exponentials[0] / sum(exponentials))


@pytest.mark.parametrize("temperature", [0.1, 1.0])
def test_contrastive(temperature: float) -> None:
    expected = [info_nce(p, others(i), temperature) for i, p in enumerate(positives())]
    loss = ContrastiveLoss(temperature=temperature)
    assert loss(GENERATED, TARGET, PERSONS, BANK).tolist() == pytest.approx(expected)
    assert loss(GENERATED, TARGET, PERSONS, lambda persons: BANK).tolist() == pytest.approx(expected)
    own = Bank(BANK.embeds.expand(3, -1, -1), BANK.persons.expand(3, -1))
    assert loss(GENERATED, TARGET, PERSONS, own).tolist() == pytest.approx(expected)


def test_contrastive_heads_are_slices() -> None:
    expected = []
    for i in range(3):
        heads = [slice(0, 4), slice(4, 8)]
        expected.append(np.mean([info_nce(cos(GENERATED[i, h], TARGET[i, h]), others(i, h), 0.1) for h in heads]))
    assert ContrastiveLoss(temperature=0.1, heads=2)(GENERATED, TARGET, PERSONS, BANK).tolist() == pytest.approx(
        expected
    )


def test_learned_parts_start_as_the_plain_loss() -> None:
    for heads, whiskers in ((1, None), (4, 0.5)):
        plain = ContrastiveLoss(temperature=0.1, heads=heads, whiskers=whiskers)
        learned = ContrastiveLoss(temperature=0.1, whiskers=whiskers, learned=LearnedSimilarity(8, heads))
        expected = plain(GENERATED, TARGET, PERSONS, BANK)
        torch.testing.assert_close(learned(GENERATED, TARGET, PERSONS, BANK), expected, rtol=1e-6, atol=1e-6)


def test_learned_parts_are_their_formulas() -> None:
    """Gates and heads by a matrix product, and the temperature of each pair by a network on the two embeddings."""
    similarity = LearnedSimilarity(8, 2).double()
    for i, weight in enumerate(similarity.parameters()):
        weight.data = normal(*weight.shape, seed=40 + i)
    assert similarity.gates is not None
    assert similarity.heads is not None
    assert similarity.temperatures is not None
    gates = 2 / (1 + (-similarity.gates.detach()).exp())
    expected = []
    for i in range(3):
        rows = zip(BANK.embeds, BANK.persons, strict=True)
        people = [TARGET[i], *(embed for embed, person in rows if person != PERSONS[i])]
        losses = []
        for head, network in zip(similarity.heads.detach(), similarity.temperatures, strict=True):
            own, *others = (head @ (gates * x) for x in (GENERATED[i], *people))
            logits, penalties = [], []
            for other in others:
                pair = torch.cat([own / own.norm(), other / other.norm()])
                layers: Any = network
                ratio = 4 ** math.tanh(layers.second((layers.first(pair)).relu()).item())
                logits.append(cos(own, other) / (0.1 * ratio))
                penalties.append(0.1 * (math.log(ratio) + 1 / ratio - 1))
            losses.append(info_nce(logits[0], logits[1:], 1.0) + np.mean(penalties))
        expected.append(np.mean(losses))
    found = ContrastiveLoss(temperature=0.1, learned=similarity)(GENERATED, TARGET, PERSONS, BANK)
    assert found.tolist() == pytest.approx(expected)


def test_mixed_embeddings_are_positive_and_negative_by_their_share() -> None:
    share = torch.tensor([0.0, 0.3, 1.0], dtype=torch.float64)
    expected = []
    for i, (p, lam) in enumerate(zip(positives(), share.tolist(), strict=True)):
        rows = [e for e, person in zip(BANK.embeds, BANK.persons, strict=True) if person != PERSONS[i]]
        hardest = max(rows, key=lambda e: cos(GENERATED[i], e))
        mixture = lam * TARGET[i] / TARGET[i].norm() + (1 - lam) * hardest / hardest.norm()
        v, n = cos(GENERATED[i], mixture), others(i)
        mixed = lam * info_nce(v, n, 0.2) + (1 - lam) * info_nce(p, [*n, v], 0.2)
        expected.append(info_nce(p, n, 0.2) + 0.4 * mixed)
    loss = MixedContrastiveLoss(temperature=0.2)
    assert loss(GENERATED, TARGET, PERSONS, BANK, share).tolist() == pytest.approx(expected)
    own = Bank(GENERATED[:1], PERSONS[:1])
    for bank in (own, Bank(GENERATED[:0], PERSONS[:0])):  # nobody to mix with
        assert loss(GENERATED[:1], TARGET[:1], PERSONS[:1], bank, share[1:2]).tolist() == [0]


def test_cosines_keep_their_digits_in_half_precision() -> None:
    """A temperature of 0.0063 turns an error of 0.002 into a factor of 1.4."""
    row = GENERATED.float(), TARGET.float(), PERSONS
    for loss in (ContrastiveLoss(), ContrastiveLoss(learned=LearnedSimilarity(8, 2)), MannWhitneyLoss()):
        expected = loss(*row, Bank(BANK.embeds.float(), BANK.persons))
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(loss(*row, Bank(BANK.embeds.float(), BANK.persons)), expected)


def test_whiskers_drop_what_lies_beyond_the_box() -> None:
    cosines = torch.tensor([[0.1, 0.12, 0.14, 0.16, 0.18, 0.95, -0.9], [0.1, 0.12, 0.14, 0.16, 0.18, 0.95, -0.9]])
    counts = torch.ones_like(cosines, dtype=torch.bool)
    counts[1, :5] = False
    kept = within_whiskers(cosines, counts)
    assert kept[0].tolist() == [True] * 5 + [False] * 2
    assert kept[1].tolist() == [False] * 5 + [True] * 2  # of these two, none is the odd one
    low, high = np.quantile(cosines[0], [0.25, 0.75])
    assert ((cosines[0] >= low - 1.5 * (high - low)) & (cosines[0] <= high + 1.5 * (high - low))).equal(kept[0])


def test_whiskers_in_the_contrastive_loss() -> None:
    """Somebody under two names: nearly the person in the picture, and gone from the sum."""
    people = Bank(torch.cat([normal(20, 8, seed=9), TARGET[:1] * 1.01]), torch.arange(100, 121))
    without = Bank(people.embeds[:-1], people.persons[:-1])
    row = TARGET[:1], TARGET[:1], PERSONS[:1]
    filtered = ContrastiveLoss(whiskers=1.5)(*row, people)
    assert filtered.item() == pytest.approx(ContrastiveLoss(whiskers=1.5)(*row, without).item())
    assert ContrastiveLoss()(*row, people) > filtered + 0.5


def test_threshold() -> None:
    loss = ThresholdLoss(positive_threshold=0.3, negative_threshold=0.05, positive_weight=0.7, negative_weight=2.0)
    expected = []
    for i, p in enumerate(positives()):
        hard = [s - 0.05 for s in others(i) if s >= 0.05]
        expected.append(0.7 * (0.3 - p if p <= 0.3 else 0) + 2.0 * (np.mean(hard) if hard else 0))
    assert loss(GENERATED, TARGET, PERSONS, BANK).tolist() == pytest.approx(expected)
    assert loss(TARGET, TARGET, PERSONS, Bank(-TARGET, PERSONS + 10)).shape == (3,)


def test_mann_whitney_is_every_positive_against_every_negative() -> None:
    negatives = [s for i in range(3) for s in others(i)]
    expected = [np.mean([math.log1p(math.exp(-(p - s) / 0.5)) for s in negatives]) for p in positives()]
    found = MannWhitneyLoss(0.5)(GENERATED, TARGET, PERSONS, BANK)
    assert found.tolist() == pytest.approx(expected)


def test_mann_whitney_bounds_the_area_over_the_curve() -> None:
    negatives = [s for i in range(3) for s in others(i)]
    over = np.mean([[p < s for s in negatives] for p in positives()])
    assert 0 < over <= MannWhitneyLoss()(GENERATED, TARGET, PERSONS, BANK).mean().item() / math.log(2)


@pytest.mark.parametrize("loss", BANK_LOSSES)
def test_no_negative_left(loss: Any) -> None:
    """Defined, and without a gradient but that of a threshold on the positive."""
    own = Bank(GENERATED[:1].clone(), PERSONS[:1])
    for bank in (own, Bank(torch.empty(0, 8, dtype=torch.float64), torch.empty(0, dtype=torch.long))):
        generated = GENERATED[:1].clone().requires_grad_(True)
        value = loss(generated, TARGET[:1], PERSONS[:1], bank)
        value.sum().backward()
        assert generated.grad is not None
        if isinstance(loss, ThresholdLoss):
            assert value.tolist() == pytest.approx([max(0, loss.positive_threshold - positives()[0])])
        elif isinstance(loss, ErrorRateLoss):
            rejected = sigmoid((loss.match_threshold - positives()[0]) / loss.temperature)
            assert value.tolist() == pytest.approx([rejected])
        else:
            assert value.tolist() == [0]
            assert not generated.grad.any()


def test_whiskers_without_negatives() -> None:
    empty = Bank(torch.empty(0, 8, dtype=torch.float64), torch.empty(0, dtype=torch.long))
    for bank in (empty, Bank(TARGET[:1], PERSONS[:1])):
        assert ContrastiveLoss(whiskers=1.5)(GENERATED[:1], TARGET[:1], PERSONS[:1], bank).tolist() == [0]


@pytest.mark.parametrize("loss", BANK_LOSSES)
def test_the_own_person_does_not_count(loss: ContrastiveLoss | ThresholdLoss | MannWhitneyLoss) -> None:
    before = loss(GENERATED[:1], TARGET[:1], PERSONS[:1], BANK)
    more = Bank(torch.cat([BANK.embeds, GENERATED[:1]]), torch.cat([BANK.persons, PERSONS[:1]]))
    torch.testing.assert_close(loss(GENERATED[:1], TARGET[:1], PERSONS[:1], more), before)
    stranger = Bank(more.embeds, torch.cat([BANK.persons, torch.tensor([99])]))
    assert loss(GENERATED[:1], TARGET[:1], PERSONS[:1], stranger) > before


def test_what_is_refused() -> None:
    with pytest.raises(LossError, match="3 heads"):
        ContrastiveLoss(heads=3)(GENERATED, TARGET, PERSONS, BANK)
    with pytest.raises(LossError, match="Negatives must"):
        ContrastiveLoss()(GENERATED, TARGET, PERSONS, Bank(BANK.embeds[:, :4], BANK.persons))
    with pytest.raises(LossError, match="Negatives must"):
        MannWhitneyLoss()(GENERATED, TARGET, PERSONS, Bank(BANK.embeds, BANK.persons[:2]))
    for nonsense in (
        lambda: ContrastiveLoss(temperature=0),
        lambda: ContrastiveLoss(whiskers=-1),
        lambda: ContrastiveLoss(heads=0),
        lambda: MixedContrastiveLoss(mixup=-1.0),
        lambda: make_contrastive(learned=("heads",)),
        lambda: LearnedSimilarity(8, parts=("eyes",)),
        lambda: LearnedSimilarity(8, 3),
        lambda: ThresholdLoss(positive_threshold=2),
        lambda: MannWhitneyLoss(0),
    ):
        with pytest.raises(LossError):
            nonsense()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_error_rates_are_sigmoids_of_the_distance_to_the_threshold() -> None:
    expected = [
        sigmoid((0.2 - p) / 0.3) + np.mean([sigmoid((n - 0.2) / 0.3) for n in others(i)])
        for i, p in enumerate(positives())
    ]
    loss = ErrorRateLoss(match_threshold=0.2, temperature=0.3)
    assert loss(GENERATED, TARGET, PERSONS, BANK).tolist() == pytest.approx(expected)
    hard = ErrorRateLoss(match_threshold=0.2, temperature=1e-6)(GENERATED, TARGET, PERSONS, BANK)
    assert hard.tolist() == pytest.approx(
        [(p < 0.2) + np.mean(np.array(others(i)) > 0.2) for i, p in enumerate(positives())]
    )
    for wrong in ({"match_threshold": 1.1}, {"temperature": 0.0}):
        with pytest.raises(LossError, match="match_threshold must be"):
            ErrorRateLoss(**wrong)


def test_the_robust_loss_lies_between_the_hinge_and_the_mean() -> None:
    def loss(robustness: float, margin: float) -> torch.Tensor:
        return RobustContrastiveLoss(robustness=robustness, margin=margin)(GENERATED, TARGET, PERSONS, BANK)

    behind = [[0.0, *(n - p + 0.1 for n in others(i))] for i, p in enumerate(positives())]
    expected = [0.4 * math.log(np.mean([math.exp(x / 0.4) for x in row])) for row in behind]
    assert loss(0.4, 0.1).tolist() == pytest.approx(expected)
    assert loss(1e-5, 0.1).tolist() == pytest.approx([max(row) for row in behind], abs=1e-3)
    assert loss(1e5, 0.1).tolist() == pytest.approx([np.mean(row) for row in behind], abs=1e-3)
    plain = ContrastiveLoss(temperature=0.4)(GENERATED, TARGET, PERSONS, BANK)
    people = torch.tensor([len(row) for row in behind])
    torch.testing.assert_close(loss(0.4, 0.0), 0.4 * (plain - people.log()))
    with pytest.raises(LossError, match="robustness must be"):
        RobustContrastiveLoss(robustness=0)


GROUPS = torch.tensor([-1, 0, 1, 0, -1, 1, -1, -1, 1])
"""Of people 0 to 8: 3 and 1 are of one group, 8, 2 and 5 of another."""


def test_within_a_group_only_its_people_are_negatives() -> None:
    loss = WithinGroupLoss(0.3, lambda: GROUPS)
    expected = []
    for i, positive in enumerate(positives()):
        rows = zip(BANK.embeds, BANK.persons.tolist(), strict=True)
        own = int(PERSONS[i])
        negatives = [cos(GENERATED[i], e) for e, who in rows if who != own and GROUPS[who] == GROUPS[own]]
        assert negatives
        expected.append(info_nce(positive, negatives, 0.3))
    assert loss(GENERATED, TARGET, PERSONS, BANK).tolist() == pytest.approx(expected)
    unknown = torch.tensor([0, 4, 6])
    everybody = ContrastiveLoss(temperature=0.3)(GENERATED, TARGET, unknown, BANK)
    torch.testing.assert_close(loss(GENERATED, TARGET, unknown, BANK), everybody)
    for groups in (None, lambda: torch.tensor([-1, -1])):
        with pytest.raises(LossError, match="a column `group`"):
            WithinGroupLoss(groups=groups)


def test_tokens_along_the_direction_of_the_group() -> None:
    """Two photos of two tokens each: cosines to the group's tokens are 1 and 0, then -0.6 and 0.8."""
    directions = torch.tensor([[[9.0, 9], [9, 9]], [[2, 0], [0, 3]]])
    tokens = torch.tensor([[[5.0, 0], [1, 0], [-3, 4], [3, 4]]]).repeat(2, 1, 1)
    loss = OrthogonalityLoss(lambda: GROUPS)
    found = loss(tokens, directions, torch.tensor([2, 0]))
    assert found.tolist() == pytest.approx([(1 + 0 + 0.36 + 0.64) / 4, 0])  # the group of the second is unknown
