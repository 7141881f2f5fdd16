"""Forgetting: adapters that no longer draw given people, and the report of it."""

from __future__ import annotations

import copy
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from idgen import Identity, IdentityAdapter
from idgen.cli import main
from idgen.errors import EncoderMismatchError, ProvenanceError
from idgen.evaluation.judges import Judges
from idgen.faces import WholePicture
from idgen.provenance.forgetting import ForgettingSettings, forget
from idgen.provenance.forgetting.drawing import Painter
from idgen.provenance.forgetting.membership import membership_accuracy, nomus
from idgen.provenance.forgetting.report import Subject, measure_forgetting
from idgen.provenance.forgetting.surgery import combined
from idgen.provenance.forgetting.tokens import TokenForgetting
from idgen.provenance.forgetting.unet import forget_in_unet
from idgen.tiny import TINY_ADAPTER_PATH
from tests.components import SMALL_PROJECTIONS, make_adapter, make_pipeline, make_unet, seeded
from tests.faces.dots import Dots

SETTINGS = ForgettingSettings(steps=20, threshold=0.8, learning_rate=5e-3)


def make_person(adapter: IdentityAdapter, seed: int) -> Identity:
    """Two photos of a random person for an adapter, with features if it reads them."""
    middle = torch.randn(1, 8, generator=seeded(seed))
    embeddings = middle + 0.2 * torch.randn(2, 8, generator=seeded(seed + 100))
    width = adapter.feature_dim
    features = None if width is None else torch.randn(2, 11, width, generator=seeded(seed + 200))
    return Identity(embeddings=embeddings, encoder="test", features=features)


def same_weights(first: torch.nn.Module, second: torch.nn.Module) -> bool:
    pairs = zip(first.state_dict().items(), second.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.mark.parametrize("name", SMALL_PROJECTIONS)
def test_forgotten_people_get_the_anchor_and_others_stay(name: str) -> None:
    adapter = make_adapter(
        make_unet(), projection=SMALL_PROJECTIONS[name], num_tokens=1 if "photomaker" in name else 6, num_words=1,
        text_dims=[16], pool_photos="photomaker" not in name,
    )  # fmt: skip
    before = copy.deepcopy(adapter)
    person, *others = (make_person(adapter, seed) for seed in range(4))
    keep = others if adapter.feature_dim else []
    result = forget(adapter, [person], SETTINGS, keep=keep)
    assert same_weights(adapter, before)
    task = TokenForgetting(adapter, [person], SETTINGS, keep)
    near, apart = task.people[0].draw(32, task.kept, seeded(1)), task.outside(task.kept.draw(32, seeded(2)))
    with torch.no_grad():
        was, now = (task.space.read(each, near) for each in (task.original, result))
        moved = (task.space.read(result, apart) - task.space.read(task.original, apart)).square().sum(-1).mean()
        distances = [(vectors - task.anchor_vectors[0]).square().sum(-1).mean() for vectors in (was, now)]
    assert distances[1] < 0.85 * distances[0]
    assert moved < distances[0] - distances[1]


def test_tokens_and_words_are_both_forgotten_at_the_default_rates() -> None:
    adapter = make_adapter(make_unet(), projection="mlp", num_words=4, text_dims=[16])
    person = make_person(adapter, 0)
    result = forget(adapter, [person], ForgettingSettings(steps=20, threshold=0.8))
    task = TokenForgetting(adapter, [person], SETTINGS)
    near, anchor = task.people[0].draw(32, task.kept, seeded(1)).embeds, task.anchors[0].embeds
    with torch.no_grad():
        for read in (IdentityAdapter.forward, lambda each, embeds: each.words(embeds)[0]):
            was, now = ((read(each, near) - read(adapter, anchor)).square().mean() for each in (adapter, result))
            assert now < 0.85 * was


def test_who_forgets_nobody_is_the_same_bit_for_bit_and_the_seed_decides() -> None:
    adapter = make_adapter(make_unet(), num_words=1, text_dims=[16]).half()
    people = [make_person(adapter, seed) for seed in range(2)]
    assert same_weights(forget(adapter, [], SETTINGS), adapter)
    assert same_weights(forget(adapter, people, ForgettingSettings(steps=0, threshold=0.8)), adapter)
    first, again = (forget(adapter, people, ForgettingSettings(steps=2, threshold=0.8)) for _ in range(2))
    assert same_weights(first, again)
    assert not same_weights(first, adapter)
    assert first.dtype == torch.float16


def test_gradients_of_forgetting_never_act_against_keeping() -> None:
    for seed in range(20):
        first, second = torch.randn(2, 6, generator=seeded(seed))
        weight = torch.nn.Parameter(torch.zeros(6))
        combined(first @ weight, second @ weight, [weight])
        assert weight.grad is not None
        forgetting = weight.grad - second
        assert forgetting @ second > -1e-5
        if first @ second >= 0:
            torch.testing.assert_close(forgetting, first)


@pytest.mark.parametrize("family", ["sd", "sdxl"])
def test_the_unet_keeps_its_weights_and_the_adapter_gets_a_lora(family: str) -> None:
    pipeline = make_pipeline(family)
    base = copy.deepcopy(pipeline.unet)
    adapter = make_adapter(pipeline.unet)
    task = TokenForgetting(adapter, [make_person(adapter, 0)], SETTINGS)
    result = forget_in_unet(pipeline, adapter, task, 2, ["a face"])
    assert same_weights(pipeline.unet, base)
    assert not result.is_attached
    assert not adapter.loras
    assert any(weight.any() for name, weight in result.loras.named_parameters() if name.endswith("up.weight"))


def test_inputs_that_cannot_be_forgotten_are_refused() -> None:
    adapter = make_adapter(make_unet())
    with pytest.raises(ProvenanceError, match="give --threshold"):
        forget(adapter, [make_person(adapter, 0)])
    with pytest.raises(EncoderMismatchError, match="reads embeddings of 'test'"):
        forget(adapter, [Identity(embeddings=torch.ones(1, 8), encoder="other")], SETTINGS)
    reads = make_adapter(make_unet(), projection=SMALL_PROJECTIONS["plus"])
    with pytest.raises(ProvenanceError, match="at least two other people"):
        forget(reads, [make_person(reads, 0)], SETTINGS)
    with pytest.raises(ProvenanceError, match="steps must be at least 0"):
        ForgettingSettings(steps=-1)


def test_membership_and_its_score() -> None:
    random = np.random.default_rng(0)
    same, far = random.normal(size=(2, 40)), random.normal(8, size=40)
    assert membership_accuracy(same[0], far) == 1
    assert 0.3 < membership_accuracy(*same) < 0.7
    assert nomus(0.5951, 0.5 + 0.2136) == pytest.approx(0.5839, abs=5e-5)  # the table of MUFAC's authors


def test_a_report_of_an_adapter_that_forgot_nothing_says_that_all_is_left() -> None:
    pipeline = make_pipeline("sd")
    adapter = make_adapter(pipeline.unet)
    people = [make_person(adapter, seed) for seed in range(2)]
    task = TokenForgetting(adapter, people, SETTINGS)
    painter = Painter(
        pipeline=pipeline,
        judges=Judges(detector=WholePicture(), encoders={"dots": Dots()}),
        prompts=["a face"],
        steps=2,
        guidance_scale=2.0,
    )
    others = [Subject(identity=make_person(adapter, seed)) for seed in range(5, 8)]
    photos = [np.full((32, 32, 3), value, np.uint8) for value in (10, 200)]
    subjects = [
        Subject(identity=people[0]),
        Subject(identity=people[1], unseen=make_person(adapter, 9), photos=photos),
    ]
    found = measure_forgetting(copy.deepcopy(adapter), task, painter, subjects, others)
    assert [line.name for line in found.lines[:3]] == ["forgotten people", "other people", "look-alikes"]
    for line in found.lines:
        if "tuning" not in line.name and "search" not in line.name:
            assert line.before == line.after, line.name
            left = line.left.value  # NaN if its pictures are like strangers
            assert np.isnan(left) or left == pytest.approx(1), line.name
    assert found.accuracy[0] == found.accuracy[1]
    assert found.membership[0] == found.membership[1]
    assert not pipeline.id_adapters


def test_the_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    Identity.random("dlib-resnet-v1", 128, seed=3).save(tmp_path / "anna.safetensors")
    monkeypatch.chdir(tmp_path)
    original = load_file(TINY_ADAPTER_PATH / "diffusion_pytorch_model.safetensors")
    for steps, changed in (("0", set()), ("2", {"to_tokens", "to_words"})):
        words = ["idgen", "forget", "tiny", "--person", "anna.safetensors", "--steps", steps, "--unet", "never"]
        monkeypatch.setattr("sys.argv", words)
        main()
        written = load_file("forgotten/diffusion_pytorch_model.safetensors")
        assert {name: each.dtype for name, each in written.items()} == {n: each.dtype for n, each in original.items()}
        assert {name.split(".")[0] for name in original if not torch.equal(written[name], original[name])} == changed
        assert (tmp_path / "forgotten" / "identity_net").is_dir()
        assert "likeness of" in capsys.readouterr().err
    monkeypatch.setattr("sys.argv", ["idgen", "forget", "tiny"])
    with pytest.raises(SystemExit):
        main()
    assert "--person is required" in capsys.readouterr().err
