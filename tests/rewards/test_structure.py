"""Distorted pictures, and a scorer that learns to tell them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from idgen.errors import CheckpointError, LossError
from idgen.rewards import Distortion, StructureScorer, bradley_terry_loss
from tests.components import seeded


@pytest.fixture(scope="module")
def portrait(astronaut: np.ndarray) -> torch.Tensor:
    """(3, 256, 256) in [0, 1]."""
    picture = torch.from_numpy(astronaut).permute(2, 0, 1)[None].float() / 255
    return torch.nn.functional.avg_pool2d(picture, 2)[0]


def crops(portrait: torch.Tensor, count: int, seed: int, side: int = 48) -> torch.Tensor:
    corners = torch.randint(0, portrait.shape[-1] - side, (count, 2), generator=seeded(seed)).tolist()
    return torch.stack([portrait[:, y : y + side, x : x + side] for y, x in corners])


def test_a_distortion_keeps_colours_and_moves_them(portrait: torch.Tensor) -> None:
    pairs = Distortion()(portrait.expand(4, -1, -1, -1), seeded(0))
    assert pairs.rejected.shape == pairs.preferred.shape == (4, *portrait.shape)
    assert (pairs.preferred - portrait).abs().mean() < 0.02
    assert 0 <= pairs.rejected.min() <= pairs.rejected.max() <= 1
    changed = (pairs.rejected - pairs.preferred).abs().mean((1, 2, 3))
    assert (changed > 0.01).all()
    assert len({round(float(x), 6) for x in changed}) == 4  # each in its own way
    torch.testing.assert_close(pairs.rejected.mean((0, 2, 3)), portrait.mean((1, 2)), atol=0.06, rtol=0)
    again = Distortion()(portrait.expand(4, -1, -1, -1), seeded(0))
    assert torch.equal(again.rejected, pairs.rejected)


def test_it_acts_within_its_radius_around_the_centres() -> None:
    """On a ramp the pixels are their own coordinates: where they were read from can be measured."""
    y, x = torch.meshgrid(torch.arange(64.0), torch.arange(64.0), indexing="ij")
    ramp = torch.stack([x, y, torch.zeros_like(x)])[None].double()
    centre = torch.tensor([[[32.0, 24.0]]])
    distortion = Distortion(points=1, radius=(0.2, 0.2), angle=(90, 90), stretch=0)
    sound, read = (picture[0] for picture in distortion(ramp, seeded(0), centre))
    fraction = (sound - ramp[0])[:2, 10, 10].view(2, 1, 1)
    assert ((fraction > 0) & (fraction < 1)).all()
    offset = torch.stack([x - 31.5, y - 23.5]).double()  # pixel centres lie at halves
    distance = offset.norm(dim=0)
    outside = distance >= 0.2 * 64
    assert torch.equal(read[:, outside], sound[:, outside])
    turned = read[:2] - fraction - torch.tensor([31.5, 23.5]).view(2, 1, 1)
    inside = (distance > 0) & ~outside
    torch.testing.assert_close(turned.norm(dim=0)[inside], distance[inside], atol=1e-5, rtol=0)  # as a turn does
    cosine = (turned * offset).sum(0)[inside] / distance[inside] ** 2
    fade = (1 - (distance[inside] / (0.2 * 64)) ** 2) ** 2
    torch.testing.assert_close(cosine, (fade * math.pi / 2).cos(), atol=1e-5, rtol=0)


def test_softness_does_not_tell_the_two_apart() -> None:
    """Resampling smooths. On noise, the finest detail of both pictures is equally weak, and weaker than before."""
    noise = torch.rand(16, 3, 64, 64, generator=seeded(0))
    pairs = Distortion(radius=(0.5, 0.5), stretch=0)(noise, seeded(1))
    before, sound, distorted = ((x[..., 1:] - x[..., :-1]).square().mean() for x in (noise, *pairs))
    assert 0.9 < distorted / sound < 1.1
    assert sound < 0.7 * before


def test_stretching_enlarges() -> None:
    x = torch.arange(64.0).expand(1, 3, 64, 64).double()
    centre = torch.tensor([[[32.0, 32.0]]])
    shifts = []
    for seed in range(8):
        distortion = Distortion(points=1, radius=(0.4, 0.4), angle=(0, 0), stretch=0.5)
        row = distortion(x, seeded(seed), centre).rejected[0, 0, 32]
        shifts.append(float(row[36] - row[28]) / 8)  # below one: fewer pixels are spread over more
    assert min(shifts) < 0.9
    assert max(shifts) > 1.1
    assert all(1 / 1.5 <= shift <= 1 / 0.5 for shift in shifts)


def test_bradley_terry() -> None:
    better, worse = torch.tensor([1.0, 0.0, -3.0]), torch.tensor([0.0, 0.0, 2.0])
    expected = [-math.log(1 / (1 + math.exp(w - b))) for b, w in zip(better.tolist(), worse.tolist(), strict=True)]
    assert bradley_terry_loss(better, worse).tolist() == pytest.approx(expected)
    inputs = (better.double().requires_grad_(True), worse.double().requires_grad_(True))
    torch.autograd.gradcheck(bradley_terry_loss, inputs)


def test_score_gradient_is_that_of_finite_differences() -> None:
    torch.manual_seed(0)
    scorer = StructureScorer((8, 8)).double()
    images = torch.rand(2, 3, 12, 10, generator=seeded(1), dtype=torch.float64, requires_grad=True)
    torch.autograd.gradcheck(scorer, (images,))
    for i, score in enumerate(scorer(images)):
        (gradient,) = torch.autograd.grad(score, images, retain_graph=True)
        assert gradient[i].any()
        assert not gradient[1 - i].any()


def test_it_learns_to_tell_distorted_from_sound(portrait: torch.Tensor) -> None:
    """Stripes that bend: on pictures that it has not seen it is right nearly always, and before training it is not."""

    def stripes(count: int, seed: int) -> torch.Tensor:
        generator = seeded(seed)
        y, x = torch.meshgrid(torch.linspace(0, 1, 32), torch.linspace(0, 1, 32), indexing="ij")
        angle, width, phase = torch.rand(3, count, 1, 1, generator=generator)
        waves = ((x * (6 * angle).cos() + y * (6 * angle).sin()) * (15 + 15 * width) + 6 * phase).sin()
        return (0.5 + 0.4 * waves)[:, None].expand(-1, 3, -1, -1)

    torch.manual_seed(0)
    scorer = StructureScorer((16, 32))
    held_out = Distortion()(stripes(128, seed=999), seeded(999))

    @torch.no_grad()
    def right() -> float:
        return (scorer(held_out.preferred) > scorer(held_out.rejected)).float().mean().item()

    before = right()
    optimizer = torch.optim.AdamW(scorer.parameters(), lr=3e-3)
    for step in range(60):
        pairs = Distortion()(stripes(16, seed=step), seeded(step))
        scores = scorer(torch.cat(pairs)).chunk(2)
        bradley_terry_loss(*scores).mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    assert before < 0.75
    assert right() > 0.9


def test_a_scorer_comes_back_from_its_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    scorer = StructureScorer((8, 16))
    scorer.save(tmp_path / "scorer.safetensors")
    assert [file.name for file in tmp_path.iterdir()] == ["scorer.safetensors"]
    images = torch.rand(2, 3, 16, 20)
    loaded = StructureScorer.load(tmp_path / "scorer.safetensors")
    assert torch.equal(loaded(images), scorer(images))
    assert not any(parameter.requires_grad for parameter in loaded.parameters())


def test_other_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "scorer.safetensors"
    with pytest.raises(CheckpointError, match="There is no file"):
        StructureScorer.load(path)
    path.write_bytes(b"not safetensors")
    with pytest.raises(CheckpointError, match="as safetensors"):
        StructureScorer.load(path)
    save_file({"score.weight": torch.zeros(1, 16)}, path)
    with pytest.raises(CheckpointError, match="not a structure scorer"):
        StructureScorer.load(path)
    StructureScorer((8,)).save(path)
    state = load_file(path)
    del state["score.bias"]
    save_file(state, path, metadata={"format": "idgen-structure-scorer-1", "channels": "[8]"})
    with pytest.raises(CheckpointError, match="do not fit"):
        StructureScorer.load(path)


def test_what_is_refused() -> None:
    for nonsense in (
        lambda: Distortion(points=0),
        lambda: Distortion(radius=(0.5, 0.2)),
        lambda: Distortion(angle=(-10, 10)),
        lambda: Distortion(stretch=1.0),
        lambda: StructureScorer(()),
        lambda: StructureScorer((12,)),
    ):
        with pytest.raises(LossError):
            nonsense()
