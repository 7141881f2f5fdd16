from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from idgen import Identity
from idgen.errors import CheckpointError, EncoderMismatchError, IdentityError
from idgen.recentring import neighbours_centred


def person(*rows: list[float], **changes: object) -> Identity:
    return Identity(**({"embeddings": torch.tensor(rows), "encoder": "test"} | changes))  # type: ignore


def angle(a: torch.Tensor, b: torch.Tensor) -> float:
    return math.degrees(torch.acos(torch.nn.functional.cosine_similarity(a, b, dim=0).clamp(-1, 1)).item())


def test_raw_and_normalised_embeddings() -> None:
    raw = person([3.0, 0.0], [0.0, 4.0])
    assert torch.equal(raw.embedding(), torch.tensor([1.5, 2.0]))
    assert angle(raw.embedding(normalised=True), torch.tensor([1.0, 1.0])) < 0.1
    assert raw.embedding(normalised=True).norm() == pytest.approx(1)
    with pytest.raises(EncoderMismatchError, match="normalised ones only"):
        person([3.0, 4.0], normalised=True).embedding()


def test_mean_keeps_every_photo_with_its_weight() -> None:
    a, b = person([1.0, 0.0]), person([0.0, 1.0], [0.0, 3.0])
    both = Identity.mean([a, b], weights=[3, 1], name="Anna")
    assert both.weights is not None
    assert both.weights.tolist() == [0.75, 0.125, 0.125]
    assert torch.allclose(both.embedding(), torch.tensor([0.75, 0.5]))
    with pytest.raises(EncoderMismatchError, match="other"):
        Identity.mean([a, person([1.0, 0.0], encoder="other")])
    with pytest.raises(IdentityError, match="one number per identity: got 1 for 2"):
        Identity.mean([a, b], weights=[1])
    with pytest.raises(IdentityError, match="at least one"):
        Identity.mean([])


def test_outliers_are_named() -> None:
    near = [person([1.0, 0.1 * i, 0.0]) for i in range(3)]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        Identity.mean(near)
    with pytest.warns(UserWarning, match="Photo 3 of 4 looks like another person"):
        Identity.mean([*near[:2], person([-1.0, 0.0, 1.0]), near[2]])


def test_mix_moves_along_the_sphere() -> None:
    a, b = person([2.0, 0.0]), person([0.0, 4.0])
    third = Identity.mix(a, b, 1 / 3).embedding()
    assert angle(third, a.embedding()) == pytest.approx(30, abs=1e-3)
    assert third.norm() == pytest.approx(8 / 3)
    assert torch.allclose(Identity.mix(a, b, 0).embedding(), a.embedding(), atol=1e-6)
    assert torch.allclose(Identity.mix(a, b, 1).embedding(), b.embedding(), atol=1e-6)
    assert torch.allclose(Identity.mix(a, a, 0.5).embedding(), a.embedding())
    with pytest.raises(EncoderMismatchError):
        Identity.mix(a, person([1.0, 0.0, 0.0]), 0.5)


def test_anonymise_turns_by_the_angle_on_the_sphere_of_an_unknown_encoder() -> None:
    anna = Identity.random("test", 128, norm=1.5, seed=1)
    other = anna.anonymise(50, seed=2)
    assert angle(anna.embedding(), other.embedding()) == pytest.approx(50, abs=1e-2)
    assert other.embedding().norm() == pytest.approx(1.5)
    assert torch.equal(other.embedding(), anna.anonymise(50, seed=2).embedding())
    assert not torch.equal(other.embedding(), anna.anonymise(50, seed=3).embedding())
    assert other.name is None


def test_random_is_seeded() -> None:
    assert torch.equal(Identity.random("test", 8, seed=1).embedding(), Identity.random("test", 8, seed=1).embedding())
    assert Identity.random("test", 8, norm=20).embedding().norm() == pytest.approx(20)


@pytest.mark.parametrize("normalised", [False, True])
def test_save_and_load(tmp_path: Path, normalised: bool) -> None:
    anna = person([3.0, 4.0], [4.0, 3.0], weights=[1, 3], features=torch.rand(2, 3, 5), name="Anna Ö", normalised=normalised)  # fmt: skip  # noqa: E501
    anna.save(tmp_path / "anna.safetensors")
    again = Identity.load(tmp_path / "anna.safetensors")
    assert (again.encoder, again.name, again.normalised) == (anna.encoder, anna.name, anna.normalised)
    for field in ("embeddings", "weights", "features"):
        assert torch.equal(getattr(again, field), getattr(anna, field))
    with safe_open(tmp_path / "anna.safetensors", "pt") as file:
        assert file.metadata()["format"] == "idgen-identity-1"
    assert [file.name for file in tmp_path.iterdir()] == ["anna.safetensors"]


def test_files_that_are_no_identity(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no file"):
        Identity.load(tmp_path / "none.safetensors")
    (tmp_path / "text").write_text("hello")
    with pytest.raises(CheckpointError, match="as safetensors"):
        Identity.load(tmp_path / "text")
    save_file({"weight": torch.ones(1)}, tmp_path / "model")
    with pytest.raises(CheckpointError, match="not an identity"):
        Identity.load(tmp_path / "model")


def test_repr_shows_no_numbers_of_the_person() -> None:
    assert repr(person([0.25, 0.5], name="Anna")) == "Identity('Anna', photos=1, dim=2, encoder='test', raw)"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"embeddings": torch.tensor([[math.nan, 1.0]])}, "must be finite"),
        ({"embeddings": torch.zeros(1, 2)}, "all zeros"),
        ({"embeddings": torch.ones(2)}, "shape"),
        ({"embeddings": torch.ones(0, 2)}, "shape"),
        ({"weights": [1, 2]}, "weights must be 1 numbers >= 0"),
        ({"weights": [-1]}, "weights must be 1 numbers >= 0"),
        ({"weights": [0]}, "all zero"),
        ({"features": torch.ones(2, 3, 4)}, "features must have shape"),
    ],
)
def test_invalid_values_are_refused(changes: dict, message: str) -> None:
    with pytest.raises(IdentityError, match=message):
        person([1.0, 0.0], **changes)


def test_features_travel_with_the_name_of_their_image_encoder(tmp_path: Path) -> None:
    anna = person([3.0, 4.0], [4.0, 3.0], weights=[1, 3], features=torch.rand(2, 3, 5), image_encoder="clip")
    bruno = person([4.0, 1.0], features=torch.rand(1, 3, 5), image_encoder="clip")
    anna.save(tmp_path / "anna")
    assert Identity.load(tmp_path / "anna").image_encoder == "clip"
    assert Identity.mean([anna, bruno]).features.shape == (3, 3, 5)  # pyright: ignore[reportOptionalMemberAccess]
    mixed = Identity.mix(anna, bruno, 0.25)
    expected = 0.75 * (0.25 * anna.features[0] + 0.75 * anna.features[1]) + 0.25 * bruno.features[0]  # pyright: ignore
    torch.testing.assert_close(mixed.mean_features(), expected)
    other = person([4.0, 1.0], features=torch.rand(1, 3, 5), image_encoder="eva")
    assert Identity.mix(anna, other, 0.5).features is None
    with pytest.raises(EncoderMismatchError, match="different image encoders"):
        Identity.mean([anna, other])


def test_neighbours_are_averaged_if_both_are_nearest_to_each_other() -> None:
    """A face whose neighbours have nearer ones, and one that is in the bank itself, stay as they are."""
    at = lambda degrees: [np.cos(np.radians(degrees)), np.sin(np.radians(degrees))]  # noqa: E731
    bank = np.array([at(0), at(100), at(200)])
    found = neighbours_centred(np.array([at(20), at(10), at(200)]), bank, neighbours=1)
    assert np.degrees(np.arctan2(found[:, 1], found[:, 0])) % 360 == pytest.approx([20, 5, 200])
