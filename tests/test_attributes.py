"""Laws of moves along directions, and the fit of a direction to data whose answer is known."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from idgen import Identity
from idgen.attributes import Direction, auc, packaged
from idgen.commands.generate import GenerateOptions
from idgen.errors import CheckpointError, EncoderMismatchError, IdentityError, IdgenError, StatisticsError
from idgen.faces import DlibEncoder

SMILE = Direction(name="smile", encoder="test", axis=torch.tensor([0.0, 3.0, 0.0, 0.0]), step=0.25, auc=0.9)
RAW = torch.randn(5, 4, generator=torch.Generator().manual_seed(0)) * torch.tensor([[0.1], [1], [3], [20], [0]])


def test_a_move_is_the_formula() -> None:
    """cos φ · p + sin φ · axis, of the same length."""
    moved = SMILE.move(torch.tensor([[2.0, 0.0, 0.0, 0.0], [0.0, 1.0, 1.0, 0.0]]), 2)
    turn = math.pi / 4 + 0.5
    expected = [[2 * math.cos(0.5), 2 * math.sin(0.5), 0, 0], [0, 2**0.5 * math.sin(turn), 2**0.5 * math.cos(turn), 0]]
    assert torch.allclose(moved, torch.tensor(expected), atol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.float32])
def test_laws_of_moves(dtype: torch.dtype) -> None:
    """0 changes no bit; there and back is the identity; moves add up; the rest of the person and the length stay; no
    identity stays none."""
    raw, tolerance = RAW.to(dtype), 2e-2 if dtype == torch.float16 else 2e-6
    assert torch.equal(SMILE.move(raw, 0), raw)
    there = SMILE.move(raw, 0.8)
    assert there.dtype == dtype
    assert not torch.allclose(there[:4], raw[:4], rtol=2e-3, atol=tolerance)
    assert torch.allclose(SMILE.move(there, -0.8), raw, rtol=2e-3, atol=tolerance)
    assert torch.allclose(SMILE.move(SMILE.move(raw, 0.5), 0.3), there, rtol=2e-3, atol=tolerance)
    assert torch.allclose(there.norm(dim=1), raw.norm(dim=1), rtol=2e-3, atol=tolerance)
    rest = torch.tensor([1.0, 0, 1, 1])
    assert torch.allclose(F.normalize(there * rest, dim=1), F.normalize(raw * rest, dim=1), rtol=2e-3, atol=tolerance)
    assert torch.equal(there[4], raw[4])
    assert torch.allclose(SMILE.value(there[:4]) - SMILE.value(raw[:4]), torch.full((4,), 0.8), atol=2e-2)


def test_each_embedding_has_its_own_amount() -> None:
    amounts = torch.tensor([0.0, 1, -1, 0.5, 0])
    moved = SMILE.move(RAW, amounts)
    assert torch.equal(moved[0], RAW[0])
    for row in range(1, 4):
        assert torch.equal(moved[row], SMILE.move(RAW[row], float(amounts[row])))


@pytest.mark.parametrize("amount", [7, -7, math.nan, math.inf])
def test_a_move_beyond_the_axis_is_refused(amount: float) -> None:
    with pytest.raises(IdentityError, match="too far"):
        SMILE.move(RAW, amount)


def test_identities_move_photo_by_photo() -> None:
    person = Identity(embeddings=RAW[:4], encoder="test", weights=torch.tensor([1.0, 2, 1, 0]), name="Anna")
    assert person.moved(SMILE, 0) is person
    moved = person.moved(SMILE, -0.6)
    assert torch.equal(moved.embeddings, SMILE.move(RAW[:4], -0.6))
    assert moved.name == "Anna"
    assert torch.equal(moved.weights, person.weights)  # pyright: ignore[reportArgumentType]
    with pytest.raises(EncoderMismatchError, match="another face encoder"):
        Identity(embeddings=RAW[:4], encoder="other").moved(SMILE)
    with pytest.raises(StatisticsError, match="no direction 'smile' for 'test'; known ones: none"):
        person.moved("smile")


def test_a_smile_is_told_from_who_smiles() -> None:
    """People who smile more often differ along axis 1; a smile itself is axis 0. With `people`, axis 1 stays out."""
    random = np.random.default_rng(0)
    people = np.repeat(np.arange(300), 6)
    friendly = random.normal(size=300)[people]
    smiles = random.random(len(people)) < 1 / (1 + np.exp(-2 * friendly))
    embeddings = 0.02 * random.normal(size=(len(people), 8))
    embeddings[:, 7] += 1
    embeddings[:, 0] += 0.06 * smiles
    embeddings[:, 1] += 0.1 * friendly
    found = Direction.fit("smile", "test", embeddings, smiles, people)
    assert float(found.axis[0]) > 0.95
    assert abs(float(found.axis[1])) < 0.1
    assert found.step == pytest.approx(0.06, rel=0.1)
    assert float(Direction.fit("smile", "test", embeddings, smiles).axis[1]) > 0.2
    values = found.value(torch.from_numpy(embeddings)).numpy()
    assert auc(values, smiles) == pytest.approx(np.mean(values[smiles][:, None] > values[~smiles]), abs=1e-6)
    with pytest.raises(StatisticsError, match="20 people with photos of both labels or more, got 0"):
        Direction.fit("smile", "test", embeddings, smiles, np.arange(len(people)))
    with pytest.raises(StatisticsError, match="20 photos of each label or more, got 0"):
        Direction.fit("smile", "test", embeddings, np.ones(len(people), bool))


def test_files(tmp_path: Path) -> None:
    SMILE.save(tmp_path / "smile.safetensors")
    found = Direction.load(tmp_path / "smile.safetensors")
    assert (found.name, found.encoder, found.step, found.auc) == ("smile", "test", 0.25, 0.9)
    assert torch.equal(found.axis, SMILE.axis)
    person = Identity(embeddings=RAW[:4], encoder="test")
    assert torch.equal(person.moved(str(tmp_path / "smile.safetensors")).embeddings, person.moved(SMILE).embeddings)
    person.save(tmp_path / "person.safetensors")
    with pytest.raises(CheckpointError, match="is not a direction"):
        Direction.load(tmp_path / "person.safetensors")
    for change in ({"step": 0.0}, {"step": math.nan}, {"axis": torch.zeros(4)}, {"axis": torch.ones(2, 2)}):
        with pytest.raises(IdentityError):
            Direction(**{"name": "smile", "encoder": "test", "axis": torch.ones(4), "step": 0.1, **change})


def test_directions_of_the_default_encoder() -> None:
    """They are small files, each with its AUC on other people, and change nothing but the angle."""
    known = packaged(DlibEncoder.name)
    assert set(known) == {"age", "sex", "smile"}
    person = Identity.random(DlibEncoder.name, DlibEncoder.dim, seed=1)
    assert person.directions == tuple(known)
    for name, direction in known.items():
        assert direction.auc is not None
        assert direction.auc > (0.6 if name == "smile" else 0.98)
        moved = person.moved(name, 0.8)
        assert moved.embeddings.norm() == pytest.approx(float(person.embeddings.norm()), rel=1e-5)
        assert torch.allclose(moved.moved(name, -0.8).embeddings, person.embeddings, atol=1e-6)


def test_the_command_reads_moves(tmp_path: Path) -> None:
    assert GenerateOptions(move={"smile": 0.8}).move == {"smile": 0.8}
    with pytest.raises(IdgenError, match="one person"):
        GenerateOptions(move={"smile": 0.8}, random=3)
    with pytest.raises(IdgenError, match="no file or folder"):
        GenerateOptions(move={f"{tmp_path}/glasses.safetensors": 0.8})
