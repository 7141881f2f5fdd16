"""People who do not exist lie where real ones do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from idgen import Identity
from idgen.errors import CheckpointError, EncoderMismatchError, StatisticsError
from idgen.faces import DlibEncoder, EncoderStatistics
from idgen.faces.space import FaceSpace


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture(scope="module")
def cone() -> FaceSpace:
    """A space whose faces differ along three axes of twelve."""
    return FaceSpace(
        encoder="cone",
        people=1000,
        mean=torch.eye(12)[0] * 0.9,
        factor=torch.eye(12)[:, 1:4] * torch.tensor([0.3, 0.2, 0.1]),
        remainder=0.02,
        length=1.5,
        length_deviation=0.1,
    )


def test_fitting_people_drawn_from_a_space_gives_it_back(cone: FaceSpace) -> None:
    drawn = torch.stack([cone.draw(generator(seed)) for seed in range(4000)]).numpy()
    again = FaceSpace.fit("cone", drawn, np.arange(4000), rank=3)
    assert (again.length, again.length_deviation) == pytest.approx((1.5, 0.1), abs=0.01)
    assert F.cosine_similarity(again.mean, cone.mean, 0) > 0.999
    for found, axis in zip(again.factor.T, cone.factor.T, strict=True):
        assert F.cosine_similarity(found, axis, 0).abs() > 0.98
        assert found.norm() == pytest.approx(float(axis.norm()), rel=0.2)  # unit length shortens what is far


def test_turning_moves_away_from_the_person_around_the_mean(cone: FaceSpace) -> None:
    person = cone.draw(generator(1))
    turned = [cone.turn(person, angle, generator(2)) for angle in (0.0, 30.0, 60.0, 90.0, 120.0, 180.0)]
    cosines = [float(F.cosine_similarity(person, other, 0)) for other in turned]
    assert torch.allclose(turned[0], person, atol=1e-6)
    assert cosines == sorted(cosines, reverse=True)
    assert all(float(other.norm()) == pytest.approx(float(person.norm())) for other in turned)
    opposite = 2 * cone.mean - F.normalize(person, dim=0)
    assert float(F.cosine_similarity(turned[-1], opposite, 0)) == pytest.approx(1)


def test_files_keep_a_space_to_half_precision(cone: FaceSpace, tmp_path: Path) -> None:
    cone.save(tmp_path / "space.safetensors")
    again = FaceSpace.load(tmp_path / "space.safetensors")
    assert torch.equal(again.factor, cone.factor.half().float())
    assert torch.allclose(again.draw(generator(3)), cone.draw(generator(3)), atol=1e-3)
    Identity.random("cone", 12, seed=1).save(tmp_path / "identity.safetensors")
    with pytest.raises(CheckpointError, match="does not contain the space"):
        FaceSpace.load(tmp_path / "identity.safetensors")


def test_too_few_people_are_refused() -> None:
    with pytest.raises(StatisticsError, match="too few"):
        FaceSpace.fit("test", np.random.default_rng(0).normal(size=(50, 12)), np.arange(50), rank=6)


def test_people_drawn_for_the_default_encoder_resemble_each_other_as_strangers_do() -> None:
    """A direction from the whole sphere has a cosine of about 0 to every face."""
    impostor = EncoderStatistics.of(DlibEncoder.name).impostor
    people = [Identity.random(DlibEncoder.name, DlibEncoder.dim, seed=seed) for seed in range(300)]
    directions = torch.stack([person.embedding(normalised=True) for person in people]).numpy()
    cosines = (directions @ directions.T)[np.triu_indices(300, 1)]
    assert cosines.mean() == pytest.approx(impostor.mean, abs=0.02)
    assert np.mean(cosines > impostor.quantile(1 - 1e-3)) <= 1e-3
    with pytest.raises(EncoderMismatchError, match="have 128 numbers, not 512"):
        Identity.random(DlibEncoder.name, 512)


def test_people_anonymised_by_90_degrees_are_not_recognised() -> None:
    statistics = EncoderStatistics.of(DlibEncoder.name)
    for seed in range(20):
        person = Identity.random(DlibEncoder.name, DlibEncoder.dim, seed=seed)
        kept, gone = (person.anonymise(angle, seed=1).embedding(normalised=True) for angle in (15, 90))
        assert person.embedding(normalised=True) @ kept > statistics.threshold(1e-3)
        assert person.embedding(normalised=True) @ gone < statistics.threshold(1e-3)


def test_anonymised_people_keep_the_attributes_that_they_shall_keep(cone: FaceSpace, tmp_path: Path) -> None:
    """By an estimator that was fitted on other people; a quarter turn without it leaves nothing of them."""
    drawn = torch.stack([cone.draw(generator(seed)) for seed in range(3000)]).numpy()
    units = drawn / np.linalg.norm(drawn, axis=1, keepdims=True)
    truth = units @ np.eye(12)[1] + 0.5 * units @ np.eye(12)[2]
    half = len(truth) // 2
    space = cone.with_attribute("age", drawn[:half], truth[:half])
    space.save(tmp_path / "space.safetensors")
    space = FaceSpace.load(tmp_path / "space.safetensors")
    judge = cone.with_attribute("age", drawn[half:], truth[half:]).attributes["age"]

    def change(keep: tuple[str, ...]) -> float:
        people = torch.from_numpy(drawn[-200:])
        turned = torch.stack([space.turn(one, 90, generator(i), keep) for i, one in enumerate(people)])
        before, after = (F.normalize(each, dim=-1) @ judge for each in (people, turned))
        assert (F.cosine_similarity(people, turned) < 0.99).float().mean() > 0.8
        return float((after - before).std() / before.std())

    assert change(()) > 0.8
    assert change(("age",)) < 0.2
    with pytest.raises(StatisticsError, match="shoe size of 'cone' are not known; known ones: age"):
        space.turn(torch.from_numpy(drawn[0]), 90, keep=("shoe size",))
    with pytest.raises(StatisticsError, match="different values"):
        space.with_attribute("age", drawn, np.ones(len(drawn)))


def test_the_default_encoder_keeps_age_and_sex() -> None:
    space = FaceSpace.of(DlibEncoder.name)
    statistics = EncoderStatistics.of(DlibEncoder.name)
    kept, cosines = [], []
    for seed in range(60):
        person = Identity.random(DlibEncoder.name, DlibEncoder.dim, seed=seed)
        other = person.anonymise(seed=1, keep=("age", "sex"))
        a, b = (one.embedding(normalised=True) - space.mean for one in (person, other))
        kept.append(bool((a @ space.attributes["sex"] > 0) == (b @ space.attributes["sex"] > 0)))
        cosines.append(float(person.embedding(normalised=True) @ other.embedding(normalised=True)))
    assert np.mean(kept) > 0.95
    assert np.mean(np.array(cosines) > statistics.threshold(1e-3)) < 0.1
