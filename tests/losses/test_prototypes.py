"""Losses with a vector for each person, by hand-written numbers."""

from __future__ import annotations

import math

import pytest
import torch

from idgen.errors import LossError
from idgen.losses import IdentityHeadLoss, NormDirectionLoss, PrototypeLoss, RelationLoss, learned_parts
from idgen.losses.term import Term
from idgen.losses.weighted import WeightedTerms

CENTRES = torch.tensor([[2.0, 0, 0], [0, 1.0, 0], [0, 0, 3.0], [0.6, 0.8, 0]])
GENERATED = torch.tensor([[0.8, 0.6, 0], [0, 0, 5.0]])
TARGET = torch.tensor([[1.0, 0, 0], [0, 0.6, 0.8]])
PERSONS = torch.tensor([0, 2])


def test_the_nearest_other_prototype_is_compared_with() -> None:
    """Cosines of the first face are 0.8 to its own prototype, 0.6, 0 and 0.96 to others; the second is at its own."""
    found = PrototypeLoss(margin=0.1, centres=lambda: CENTRES)(GENERATED, TARGET, PERSONS)
    assert found.tolist() == pytest.approx([0.1 - 0.8 + 0.96, 0], abs=1e-6)
    alone = PrototypeLoss(margin=0.1, centres=lambda: CENTRES[:1])
    generated = GENERATED[:1].clone().requires_grad_(True)
    value = alone(generated, TARGET[:1], PERSONS[:1])
    value.sum().backward()
    assert value.tolist() == [0]
    assert generated.grad is not None
    assert generated.grad.isfinite().all()


def test_learned_prototypes_classify_the_targets() -> None:
    cosines = [[1, 0, 0, 0.6], [0, 0.6, 0.8, 0.48]]
    expected = [
        -math.log(math.exp(row[y] / 0.5) / sum(math.exp(s / 0.5) for s in row))
        for row, y in zip(cosines, (0, 2), strict=True)
    ]
    loss = PrototypeLoss(margin=0.1, temperature=0.5, learned_prototypes=True, centres=lambda: CENTRES)
    triplet = PrototypeLoss(margin=0.1, centres=lambda: CENTRES)(GENERATED, TARGET, PERSONS)
    assert (loss(GENERATED, TARGET, PERSONS) - triplet).tolist() == pytest.approx(expected, abs=1e-6)
    parts = learned_parts(WeightedTerms({"a": Term(loss), "b": Term(RelationLoss(centres=lambda: CENTRES))}))
    assert {name: weight.shape for name, weight in parts.named_parameters()} == {"a.prototypes": (4, 3)}


def test_relations_are_those_of_the_older_adapter() -> None:
    def shares(cosines: list[float]) -> list[float]:
        exponentials = [math.exp(s / 0.5) for s in cosines]
        return [e / sum(exponentials) for e in exponentials]

    p, q = shares([0.8, 0.6, 0, 0.96]), shares([1, 0, 0, 0.6])
    expected = sum(b * math.log(b / a) for a, b in zip(p, q, strict=True))
    loss = RelationLoss(temperature=0.5, centres=lambda: CENTRES)
    assert loss(GENERATED[:1], TARGET[:1]).tolist() == pytest.approx([expected], abs=1e-6)
    assert loss(GENERATED, 2 * GENERATED).tolist() == pytest.approx([0, 0], abs=1e-6)


@pytest.mark.parametrize("power", [0.0, 0.7, 1.0])
def test_the_identity_head_is_generalised_cross_entropy(power: float) -> None:
    def entropy(cosines: list[float], person: int) -> float:
        p = math.exp(cosines[person] / 0.5) / sum(math.exp(s / 0.5) for s in cosines)
        return (1 - p**power) / power if power else -math.log(p)

    head = IdentityHeadLoss(temperature=0.5, head_power=power, centres=lambda: CENTRES)
    generated = GENERATED.clone().requires_grad_(True)
    found = head(generated, TARGET, PERSONS)
    of_generated = [entropy([0.8, 0.6, 0, 0.96], 0), entropy([0, 0, 1, 0], 2)]
    of_targets = [entropy([1, 0, 0, 0.6], 0), entropy([0, 0.6, 0.8, 0.48], 2)]
    assert found.tolist() == pytest.approx([a + b for a, b in zip(of_generated, of_targets, strict=True)], abs=1e-5)
    found.sum().backward()
    assert generated.grad is not None
    assert generated.grad.any()
    learned = head.vectors.grad
    assert learned is not None
    head.zero_grad()
    head(GENERATED.flip(0), TARGET, PERSONS).sum().backward()
    again = head.vectors.grad
    assert again is not None
    assert torch.equal(again, learned)  # what is drawn does not train the head
    assert [*learned_parts(WeightedTerms({"a": Term(head)})).state_dict()] == ["a.vectors"]


def test_norm_and_direction_are_those_of_the_mean_and_the_photo() -> None:
    loss = NormDirectionLoss(lambda: CENTRES)
    generated = torch.tensor([[0.8, 0.6, 0], [0, 0, 5.0]])
    assert loss(generated, 4 * TARGET, PERSONS).tolist() == pytest.approx([1 - 0.8 / 4, 0])
    assert loss(generated, 0.5 * TARGET, PERSONS).tolist() == pytest.approx([1 - 0.8, 0])  # longer is no better
    assert loss(-generated, TARGET, PERSONS).tolist() == pytest.approx([1.8, 2])


def test_what_is_refused() -> None:
    for nonsense in (
        lambda: NormDirectionLoss(),
        lambda: IdentityHeadLoss(),
        lambda: IdentityHeadLoss(head_power=1.1, centres=lambda: CENTRES),
        lambda: IdentityHeadLoss(temperature=0, centres=lambda: CENTRES),
        lambda: PrototypeLoss(),
        lambda: RelationLoss(),
        lambda: PrototypeLoss(margin=-1, centres=lambda: CENTRES),
        lambda: PrototypeLoss(temperature=0, centres=lambda: CENTRES),
        lambda: RelationLoss(temperature=0, centres=lambda: CENTRES),
    ):
        with pytest.raises(LossError):
            nonsense()
