"""Losses with a vector for each person, by hand-written numbers."""

from __future__ import annotations

import math

import pytest
import torch

from idgen.errors import LossError
from idgen.losses import PrototypeLoss, RelationLoss, learned_parts
from idgen.losses.weighted import Term, WeightedTerms

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


def test_what_is_refused() -> None:
    for nonsense in (
        lambda: PrototypeLoss(),
        lambda: RelationLoss(),
        lambda: PrototypeLoss(margin=-1, centres=lambda: CENTRES),
        lambda: PrototypeLoss(temperature=0, centres=lambda: CENTRES),
        lambda: RelationLoss(temperature=0, centres=lambda: CENTRES),
    ):
        with pytest.raises(LossError):
            nonsense()
