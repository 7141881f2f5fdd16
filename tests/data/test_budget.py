"""People and photos that are chosen for a budget."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from idgen.data.budget import MOST_PHOTOS, Budget, choose
from idgen.data.clustering import unit
from idgen.errors import DataError

from . import sets


def crowd(people: int = 400, photos: int = 5, dim: int = 16, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """People of two kinds, the first kind near the first axis and the second kind near the second one."""
    random = np.random.default_rng(seed)
    labels = np.repeat(np.arange(people), photos)
    person = random.normal(size=(people, dim)) + 6 * np.eye(dim)[np.arange(people) % 2]
    return unit(person[labels] + 0.3 * random.normal(size=(len(labels), dim))), labels


@pytest.mark.parametrize("faces", [1, 37, 500, 1999, 5000])
def test_a_budget_is_used_and_never_exceeded(faces: int) -> None:
    units, labels = crowd()
    labels[::7] = -1  # set aside
    chosen = choose(units, labels, Budget(faces=faces))
    assert chosen.sum() == min(faces, (labels >= 0).sum())
    assert not chosen[labels < 0].any()
    assert (chosen == choose(units, labels, Budget(faces=faces))).all()
    assert choose(*crowd(3, 40), Budget(faces=1000)).sum() == 3 * MOST_PHOTOS


def test_people_are_chosen_as_the_target_has_them() -> None:
    """And evenly without a target."""
    units, labels = crowd()
    kind = labels % 2
    assert kind[choose(units, labels, Budget(faces=600))].mean() == pytest.approx(0.5, abs=0.1)
    other, other_labels = crowd(seed=1)
    for wanted in (0, 1):
        target = other[other_labels % 2 == wanted]
        chosen = choose(units, labels, Budget(faces=600), target)
        assert (kind[chosen] == wanted).mean() > 0.95
        distance = [np.linalg.norm(units[rows].mean(0) - target.mean(0)) for rows in (chosen, labels >= 0)]
        assert distance[0] < distance[1] / 2


def test_of_a_person_those_photos_are_chosen_that_differ() -> None:
    """The copies of one photo are not taken before the others."""
    units, _ = crowd(1, 6)
    copies = np.concatenate([np.repeat(units[:1], 20, 0), units])
    copies = unit(copies + 1e-4 * np.random.default_rng(0).normal(size=copies.shape))
    chosen = choose(copies, np.zeros(len(copies), int), Budget(faces=6))
    assert chosen[:20].sum() + chosen[20] == 1


def test_faces_beyond_the_budget_are_set_aside_and_told(tmp_path: Path) -> None:
    for person in range(3):
        for number in range(2):
            sets.save(sets.portrait(128, 25 * person + 12 * number), tmp_path / "in" / f"p{person}" / f"{number}.png")
    everybody = sets.make_set(tmp_path / "in", tmp_path / "set")
    people = sets.AssignOptions(shares={}, budget=Budget(faces=2))
    manifest = sets.make_set(tmp_path / "in", tmp_path / "set", people=people)  # the shards themselves are kept
    sets.assert_nothing_is_missing(manifest, tmp_path / "set", 6)
    assert manifest.counts["usable"] == 2 < everybody.counts["usable"]
    assert manifest.aside["over-budget"] == everybody.counts["usable"] - 2
    assert "like" not in manifest.settings["people"]["budget"]
    again = sets.make_set(tmp_path / "in", tmp_path / "set")
    assert again.counts == everybody.counts
    with pytest.raises(DataError, match="at least one face"):
        Budget(faces=0)
    with pytest.raises(DataError, match="not a finished set"):
        Budget(faces=1, like=str(tmp_path)).target("dlib-resnet-v1")
