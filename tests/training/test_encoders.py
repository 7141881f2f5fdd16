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

from idgen import FaceAnalyzer, IdentityAdapter
from idgen.cli import main
from idgen.data.assign import AssignOptions
from idgen.data.cache import write_caches
from idgen.data.prepare import PrepareOptions, prepare
from idgen.faces import DlibDetector
from idgen.faces.insightface import InsightFaceEncoder, InsightFacePack
from idgen.losses import LossConfig
from idgen.losses.embedders import open_embedder
from idgen.training.randomness import generators
from tests.components import seeded
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
        patch.setattr(FaceAnalyzer, "for_encoder", lambda name: FaceAnalyzer(DlibDetector(), encoder))
        yield encoder


@pytest.fixture(scope="module")
def shards(shared: Path, arcface: InsightFaceEncoder, tmp_path_factory: pytest.TempPathFactory) -> str:
    photos, output = tmp_path_factory.mktemp("photos"), str(tmp_path_factory.mktemp("shards"))
    with tarfile.open(shared / "data" / "lfw" / "lfw-000.tar") as tar:
        for member in tar.getmembers()[:12]:
            tar.extract(member, photos, filter="data")
    prepare(PrepareOptions(photos=str(photos), output=output, encoder=NAME, people=AssignOptions(shares={})))
    write_caches(output, ["latents"], base="tiny", resolution=64)
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
        *("--projection", "resampler", "--num_tokens", "4", "--max_train_steps", "2", "--train_batch_size", "2"),
        *(
            "--losses",
            "denoising=0",
            "identity=1",
            "contrastive=0",
            "preservation=0",
            "--optimizer.lr_warmup_steps",
            "1",
        ),
        *("--optimizer.learning_rate", "1e-3", "--drop_identity", "0", "--drop_both", "0"),
    )
    config = IdentityAdapter.from_pretrained(run).config
    assert (config["encoder"], config["embedding_dim"]) == (NAME, 512)
    rows = list(map(json.loads, (run / "metrics.jsonl").open()))
    assert all(0 <= row["identity"] <= 2 for row in rows)
    assert NAME in (run / "README.md").read_text()
    train(
        monkeypatch,
        *("reward", "--id_adapter", str(run), "--train_data_dir", shards, "--output_dir", str(reward)),
        *("--max_train_steps", "2", "--train_batch_size", "2", "--optimizer.lr_warmup_steps", "1"),
        *("--rollout.steps", "2", "--rollout.last", "1", "--rewards.hinge", "0.9"),
    )
    before, after = (IdentityAdapter.from_pretrained(folder).state_dict() for folder in (run, reward))
    assert any(not torch.equal(before[name], after[name]) for name in before)
