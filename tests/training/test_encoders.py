"""Training with another face encoder than the default: an InstantID-type adapter on an ArcFace network."""

from __future__ import annotations

import json
import sys
import tarfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from idgen import IdentityAdapter
from idgen.cli import main
from idgen.data.assign import AssignOptions
from idgen.data.cache import write_caches
from idgen.data.prepare import PrepareOptions, prepare
from idgen.faces import ENCODERS, DlibDetector
from idgen.faces.insightface import InsightFaceEncoder, InsightFacePack
from idgen.losses import LossConfig, WeightedTerms, make_losses, over_encoders
from idgen.losses.embedders import open_embedder
from idgen.training.batch import Batch
from idgen.training.denoiser import LossEncoder
from idgen.training.randomness import generators
from tests.components import seeded
from tests.faces.dots import ROW
from tests.faces.onnx_pack import write_iresnet, write_pack
from tests.training.runs import RandomPeople, make_step

NAME = "insightface/random_l"


@pytest.fixture(scope="module")
def arcface(tmp_path_factory: pytest.TempPathFactory):
    """A pack with a random ArcFace network where insightface looks for packs, with dlib's detector in front of it."""
    home = tmp_path_factory.mktemp("home")
    folder = write_pack(home / ".insightface" / "models" / "random_l", recogniser=False)
    write_iresnet(folder / "recogniser.onnx", (1, 1, 1, 1), width=8, dim=512)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HOME", str(home))
        encoder = InsightFaceEncoder(InsightFacePack("random_l"))
        patch.setitem(ENCODERS, "dots", ROW)
        patch.setitem(ENCODERS, "insightface", replace(ENCODERS["insightface"], detector=lambda _: DlibDetector()))
        yield encoder


@pytest.fixture(scope="module")
def shards(shared: Path, arcface: InsightFaceEncoder, tmp_path_factory: pytest.TempPathFactory) -> str:
    photos, output = tmp_path_factory.mktemp("photos"), str(tmp_path_factory.mktemp("shards"))
    with tarfile.open(shared / "data" / "lfw" / "lfw-000.tar") as tar:
        for member in tar.getmembers()[:12]:
            tar.extract(member, photos, filter="data")
    prepare(PrepareOptions(photos=str(photos), output=output, encoder=NAME, people=AssignOptions(shares={})))
    write_caches(output, ["latents"], base="tiny", resolution=64, encoders=[NAME, "dots", "dlib-resnet-v1"])
    return output


def train(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["idgen", "train", *arguments, "--validation_people", "0"])
    main()


def test_the_network_with_a_gradient_is_that_of_the_pack(arcface: InsightFaceEncoder, astronaut: np.ndarray) -> None:
    embedder = open_embedder(NAME)
    face = DlibDetector().detect(astronaut)[0]
    image = torch.tensor(astronaut).permute(2, 0, 1)[None].float().div(255).requires_grad_()
    found = embedder(image, torch.from_numpy(face.landmarks)[None])[0]
    expected = torch.from_numpy(arcface.embed(arcface.crop(astronaut, face.landmarks)[None])[0])
    assert (embedder.name, embedder.size) == (arcface.name, 112) == (NAME, 112)
    assert torch.cosine_similarity(found, expected, 0) > 0.999
    assert torch.autograd.grad(found.sum(), image)[0].abs().sum() > 0


def test_the_identity_loss_of_an_arcface_network_falls(arcface: InsightFaceEncoder) -> None:
    """On one batch with the same noise in every step, so that only the weights change."""
    step = make_step(losses=LossConfig.only(denoising=0, identity=1))
    step.embedder = open_embedder(NAME)
    batch = replace(RandomPeople(4).make(0), target_embeds=torch.randn(4, 512, generator=seeded(1)))
    optimizer = torch.optim.Adam(step.parameters(), 1e-2)
    losses = []
    for _ in range(15):
        with step:
            loss = step(batch, generators(0, 0, 0, len(batch))).total
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        losses.append(float(loss))
    assert losses[-1] < losses[0] - 0.02
    assert losses == sorted(losses, reverse=True)


def test_both_stages_with_the_losses_and_rewards_of_an_arcface_network(
    shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, reward = tmp_path / "run", tmp_path / "reward"
    train(
        monkeypatch,
        *("denoise", "--train_data_dir", shards, "--output_dir", str(run)),
        *("--projection", "resampler", "hidden_dim=16", "dim_head=8", "depth=1", "--num_tokens", "4"),
        *("--max_train_steps", "2", "--train_batch_size", "2"),
        *("--losses", "denoising=0", "identity=1", "contrastive=0", "preservation=0", "--losses.over", "max"),
        *("--losses.encoder", NAME, "dots", "--references", "2", "--optimizer.lr_warmup_steps", "1"),
        *("--optimizer.learning_rate", "1e-3", "--drop_identity", "0", "--drop_both", "0"),
    )
    config = IdentityAdapter.from_pretrained(run).config
    assert (config["encoder"], config["embedding_dim"]) == (NAME, 512)
    rows = list(map(json.loads, (run / "metrics.jsonl").open()))
    assert all(0 <= row[f"identity/{name}"] <= 2 for row in rows for name in (NAME, "dots"))
    assert f"| face encoders of the losses | {NAME}, dots |" in (run / "README.md").read_text()
    train(
        monkeypatch,
        *("reward", "--id_adapter", str(run), "--train_data_dir", shards, "--output_dir", str(reward)),
        *("--max_train_steps", "2", "--train_batch_size", "2", "--optimizer.lr_warmup_steps", "1"),
        *("--rollout.steps", "2", "--rollout.last", "1", "--rewards.hinge", "0.9", "--rewards.over", "mean"),
        *("--rewards.encoder", "dots", "dlib-resnet-v1"),
    )
    (*_, row) = map(json.loads, (reward / "metrics.jsonl").open())
    assert {"identity/dots", "identity/dlib-resnet-v1"} <= row.keys()
    card = (reward / "README.md").read_text()
    assert f"| face encoder of the adapter | {NAME} |" in card
    assert "| face encoders of the rewards | dots, dlib-resnet-v1 |" in card
    before, after = (IdentityAdapter.from_pretrained(folder).state_dict() for folder in (run, reward))
    assert any(not torch.equal(before[name], after[name]) for name in before)


def test_an_adapter_reads_another_encoder_than_the_sets(
    shards: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = (
        "--train_data_dir",
        shards,
        "--max_train_steps",
        "1",
        "--train_batch_size",
        "2",
        "--losses",
        "contrastive=0",
    )
    more = ("--output_dir", str(tmp_path / "run"), "--encoder", "dlib-resnet-v1", "--losses.encoder", "dots")
    train(monkeypatch, "denoise", *flags, *more)
    config = IdentityAdapter.from_pretrained(tmp_path / "run").config
    assert (config["encoder"], config["embedding_dim"]) == ("dlib-resnet-v1", 128)
    again = ("denoise", *flags, "--output_dir", str(tmp_path / "again"), "--id_adapter", str(tmp_path / "run"))
    with pytest.raises(SystemExit):
        train(monkeypatch, *again)  # the set's own embeddings are of another encoder


def test_losses_by_two_encoders_are_the_mean_of_each_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """For every loss that reads embeddings or features of an encoder, in one step from the same noise."""
    monkeypatch.setitem(ENCODERS, "dots", ROW)
    config = LossConfig.only(identity=1, contrastive=0.1, features=0.5, symmetry=0.5, over="mean")
    random = seeded(1)
    dlib, dots = (torch.randn(3, 2, dim, generator=random) for dim in (128, 48))
    embedders = {name: open_embedder(name) for name in ("dlib-resnet-v1", "dots")}
    batch = replace(
        RandomPeople(3).make(0), target_embeds=dlib[:, 0], reference_embeds=dlib, by_encoder={"dots": dots}
    )
    step = make_step(losses=config)

    def evaluate(batch: Batch, losses: WeightedTerms, main: str, *others: str) -> torch.Tensor:
        step.losses, step.embedder, step._reads = losses, embedders[main], losses.reads()
        step.others = {name: LossEncoder(embedders[name]) for name in others}
        with step:
            return step(batch, generators(0, 0, 0, 3)).values.detach()

    one, two = (make_losses(config, step.base.parametrisation) for _ in range(2))
    first, second = evaluate(batch, one, "dlib-resnet-v1"), evaluate(batch.compared_by("dots"), two, "dots")
    both = over_encoders({"dlib-resnet-v1": one, "dots": two})
    assert torch.allclose(evaluate(batch, both, *embedders), (first + second) / 2, atol=1e-5)
    assert {"denoising", "identity/dlib-resnet-v1", "identity/dots"} <= both.terms.keys()
