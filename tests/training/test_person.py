"""One person: what is tuned opens in stock diffusers and in idgen as the same, and the laws of its losses."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from diffusers.utils import logging
from PIL import Image

import idgen
from idgen.adapter.words import WordProjection
from idgen.commands.generate import GenerateOptions
from idgen.commands.shared import open_pipeline
from idgen.errors import ManyFacesError, StatisticsError, TrainingError
from idgen.losses import LossConfig, make_losses
from idgen.tiny import load_tiny_base
from idgen.tiny.usage import Usage, usage_of
from idgen.training.base import BaseModel
from idgen.training.config import LoopConfig, OptimizerConfig
from idgen.training.opening import open_run
from idgen.training.parsing import parse
from idgen.training.person import parts, run
from idgen.training.person.config import PersonConfig
from idgen.training.person.likeness import BestWeights, Likeness, Patience
from idgen.training.person.parts import losses_of, make_parts
from idgen.training.person.photos import read_photos
from idgen.training.person.prior import draw_prior
from idgen.training.person.run import train_person
from idgen.training.person.step import PersonStep
from idgen.training.tracking import METRICS, append_row
from tests.components import make_adapter, make_pipeline, seeded

from .runs import RandomPeople

LOOP = LoopConfig(max_train_steps=2, train_batch_size=2, checkpointing_steps=1, checkpoints_total_limit=1)


@pytest.fixture(scope="module", autouse=True)
def few_steps() -> Iterator[None]:
    """Pictures are drawn in two steps."""
    usage = replace(usage_of("tiny"), num_inference_steps=2)
    with pytest.MonkeyPatch.context() as patch:
        for module in (parts, run):
            patch.setattr(module, "usage_of", lambda _: usage)
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory, astronaut: np.ndarray) -> Path:
    """Three photos of one person: a portrait in the public domain, darker and lighter."""
    folder = tmp_path_factory.mktemp("photos")
    for number, light in enumerate((1.0, 0.8, 0.9)):
        Image.fromarray((astronaut[:240, 120:360] * light).astype(np.uint8)).save(folder / f"{number}.png")
    return folder


def config(photos: Path, output: Path, **changes: Any) -> PersonConfig:
    optimizer = OptimizerConfig(learning_rate=1e-2, lr_warmup_steps=0, ema_decay=0.5)
    given = {"prior_pictures": 1, "validation_pictures": 1, "lora_rank": 2, "loop": LOOP, "optimizer": optimizer}
    return PersonConfig(photos=photos, output_dir=output, **{**given, **changes})


@pytest.fixture(scope="module")
def tuned(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A DoRA and pseudo-words, with the triplet loss."""
    folder = tmp_path_factory.mktemp("run") / "Anna B"
    assert train_person(config(photos, folder, dora=True, triplet=1.0)) is not None
    return folder


def trained(step: PersonStep) -> set[str]:
    """The parts that are trained."""
    names = [name for name, weight in step.named_parameters() if weight.requires_grad]
    return {".".join(name.split(".")[: 2 if name.startswith("adapter") else 1]) for name in names}


def drawn(pipeline: Any, prompt: str, **options: Any) -> np.ndarray:
    pipeline.set_progress_bar_config(disable=True)
    call = {"num_inference_steps": 2, "guidance_scale": 3.0, "generator": seeded(0), "output_type": "np"}
    return pipeline(prompt, **call, **options).images


def test_a_tuned_folder_draws_the_same_in_stock_diffusers_and_in_idgen(tuned: Path) -> None:
    logging.set_verbosity_error()
    folder = str(tuned / "checkpoint-2")  # the start may be the most similar
    ours = open_pipeline("tiny", folder, None, "cpu")
    options = GenerateOptions(prompt="a photo of <id>", id_adapter=folder)
    assert options.identity_file is not None
    person = idgen.Identity.load(options.identity_file)
    mine = drawn(ours, "a photo of <id>", id_embeds=person)
    stock = load_tiny_base()
    without = drawn(stock, "a photo of a person")
    stock.load_textual_inversion(folder)
    stock.load_lora_weights(folder)
    np.testing.assert_allclose(drawn(stock, "a photo of <anna-b>"), mine, atol=1e-5)
    assert np.abs(mine - without).max() > 0.01
    assert len(person.embeddings) == 2  # the third photo is held out


def test_the_weights_with_the_highest_similarity_are_kept_and_it_is_told(tuned: Path, photos: Path) -> None:
    rows = [json.loads(line) for line in (tuned / "metrics.jsonl").read_text().splitlines()]
    measured = {row["step"]: row[name] for row in rows for name in row if name.startswith("validation/similarity/")}
    assert list(measured) == [1, 2]
    assert all(row["triplet"] >= 0 for row in rows if "norm" in row and "triplet" in row)
    likeness = Likeness.load(tuned)
    assert likeness.held_out
    measured[0] = likeness.before
    assert likeness.after == max(measured.values()) == measured[likeness.update]
    weights = tuned / "pytorch_lora_weights.safetensors"
    assert weights.read_bytes() == (tuned / "best" / str(likeness.update) / weights.name).read_bytes()
    assert f"{likeness.after:.3f} after {likeness.update} updates" in (tuned / "README.md").read_text()
    resume = LoopConfig(**{**vars(LOOP), "resume_from_checkpoint": "latest"})
    again = train_person(config(photos, tuned, dora=True, triplet=1.0, loop=resume))
    assert again == likeness


def test_a_rare_word_is_the_same_in_a_prompt_and_as_a_pseudo_word(photos: Path, tmp_path: Path) -> None:
    """If only a LoRA is trained, `<id>` of the adapter stands for the word that stock diffusers reads."""
    given = config(photos, tmp_path, learn="lora", prior_pictures=0, loop=replace(LOOP, compile=True))
    accelerator, base = open_run(given)
    assert base.unet._compiled_call_impl is not None
    made = make_parts(given, base, accelerator)
    assert made.person == "<id> person"
    assert trained(made.step) == {"lora"}
    assert set(made.step.losses.terms) == {"denoising"}
    adapter = made.step.adapter
    assert adapter is not None
    identity = adapter.encode(torch.randn(1, 128))
    spelt = base.encode(["a photo of sks person"])["encoder_hidden_states"]
    torch.testing.assert_close(base.encode(["a photo of <id> person"], identity)["encoder_hidden_states"], spelt)


def test_tuning_starts_from_what_an_adapter_draws(photos: Path, tmp_path: Path) -> None:
    """Before the first update the tuned adapter is the given one, and its projections alone are trained."""
    given = config(photos, tmp_path, learn="words", id_adapter="tiny", prior_pictures=0)
    accelerator, base = open_run(given)
    made = make_parts(given, base, accelerator)
    step = made.step
    assert trained(step) == {"adapter.to_tokens", "adapter.to_words"}
    assert set(step.losses.terms) == {"denoising", "identity"}, "denoising alone would make it less like the person"
    original = idgen.IdentityAdapter.from_pretrained("tiny")
    person = made.photos.identity.embedding(normalised=True)
    with torch.no_grad():
        tokens = step.encode(made.batches.make(0))
    assert tokens is not None
    torch.testing.assert_close(tokens.tokens[0], original.encode(person[None]).tokens[0])


def test_prior_pictures_are_kept_for_the_same_weights_alone(tmp_path: Path) -> None:
    """A base model may be trained on under its name."""
    drawn = []
    for factor in (1.0, 1.0, 1.01):
        pipe = load_tiny_base()
        pipe.unet.conv_in.weight.data *= factor
        base = BaseModel(pipe, torch.float32, torch.device("cpu"))
        (file,) = draw_prior(base, tmp_path, "a photo of a person", 1, 128, Usage(num_inference_steps=1))
        drawn.append((file.stat().st_mtime_ns, file.read_bytes()))
    first, kept, other = drawn
    assert first == kept
    assert first[1] != other[1]


def test_prior_pictures_have_their_weight() -> None:
    base = BaseModel(make_pipeline(), torch.float32, torch.device("cpu"))
    adapter = make_adapter(base.unet)
    adapter.attach(base.unet)
    person = idgen.Identity(embeddings=torch.ones(1, 8), encoder="test")
    losses = make_losses(LossConfig.only(denoising=1), base.parametrisation)
    step = PersonStep(base, adapter, losses, person=person, token="<anna>")
    batch = replace(RandomPeople(4).make(0), has_identity=torch.tensor([True, True, False, False]))
    values = {}
    for weight in (1.0, 0.25):
        step.prior_weight = weight
        with torch.no_grad(), step:
            values[weight] = step(batch, seeded(1)).values
    torch.testing.assert_close(values[0.25], values[1.0] * torch.tensor([1, 1, 0.25, 0.25]))


def test_adaptive_words_have_the_statistics_of_the_words_whatever_the_identity() -> None:
    projection = WordProjection(8, num_words=3, text_dim=64, adaptive=True)
    table = 5 + torch.randn(40, 64, generator=seeded(1)) * torch.rand(64, generator=seeded(2))
    projection.set_statistics(table)
    found = (projection(100 * torch.randn(5, 8)) - table.mean(0)) / table.std(0)
    torch.testing.assert_close(found.mean(-1), torch.zeros(5, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(found.std(-1, correction=0), torch.ones(5, 3), atol=1e-3, rtol=0)
    projection.initialise_at(table[:3])
    assert (F.cosine_similarity(projection(torch.randn(2, 8)), table[:3].expand(2, -1, -1), dim=-1) > 0.9).all()


def test_the_best_weights_are_kept_and_a_run_stops_if_the_similarity_does_not_rise(tmp_path: Path) -> None:
    """The start is a candidate: a run that makes nothing better keeps it. Resumed from any checkpoint, a run has the
    weights that were the best up to there."""
    values = iter([0.2, 0.1, 0.3, 0.3, 0.2])
    step: Any = SimpleNamespace(save=lambda folder: folder.mkdir(parents=True))
    best = BestWeights(step, lambda _: {"similarity": next(values)}, tmp_path / METRICS, "similarity")
    best.start()
    stops, kept = [], []
    for update in range(1, 5):
        append_row(tmp_path / METRICS, {"step": update, **best(update)})
        stops.append(Patience(best=best, patience=2)(tmp_path))
        kept.append(best.best()[0])
    assert kept == [0, 2, 2, 2]
    assert sorted(folder.name for folder in (tmp_path / "best").iterdir()) == ["0", "2"]
    assert stops == [False, False, False, True]
    assert not Patience(best=best, patience=0)(tmp_path)


def test_what_is_refused(photos: Path, tmp_path: Path, group_photo: Path, analyzer: idgen.FaceAnalyzer) -> None:
    with pytest.raises(TrainingError, match="has no photos"):
        read_photos(tmp_path, analyzer)
    with pytest.raises(ManyFacesError, match=r"t1\.jpg"):
        read_photos(group_photo, analyzer)
    for wrong in ({"triplet": 1.0, "prior_pictures": 0}, {"dora": True, "learn": "words"}, {"lora_rank": 0}):
        with pytest.raises(TrainingError, match="must"):
            config(photos, tmp_path, **wrong)
    with pytest.raises(StatisticsError, match="--margin"):
        losses_of(config(photos, tmp_path, triplet=1.0), "unknown")


def test_a_dry_run_writes_nothing(photos: Path, tmp_path: Path) -> None:
    output = tmp_path / "anna"
    assert train_person(config(photos, output, learn="words", loop=replace(LOOP, dry_run=True))) is None
    assert not list(tmp_path.iterdir())


def test_presets_parse(photos: Path) -> None:
    fast, best = (
        parse("person", [str(photos), "--preset", name, "--output", "anna"], "") for name in ("fast", "best")
    )
    assert (fast.triplet, best.triplet) == (0.0, 1.0)
    assert fast.loop.max_train_steps < best.loop.max_train_steps
