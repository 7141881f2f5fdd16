"""Rollouts with a graph: the same pictures as the pipeline's, and the gradient of finite differences."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import diffusers
import numpy as np
import pytest
import torch

from idgen.errors import TrainingError
from idgen.faces import Detection
from idgen.losses import FaceDecoder, FaceEmbedder, Term
from idgen.rewards import IdentityReward, WeightedRewards
from idgen.training.base import BaseModel
from idgen.training.batch import Batch
from idgen.training.methods import METHODS as CONFIGS
from idgen.training.reward_backprop import RewardStep
from idgen.training.rollout import Rollout, make_scheduler
from tests.components import SIDE, make_adapter, make_pipeline, seeded

from .runs import POINTS, RandomPeople

METHODS = ("refl", "draft", "draft-lv", "alignprop")
KINDS = ("DDIM", "DDPM", "EulerDiscrete", "LCM", "DPMSolverMultistep")
SCHEDULERS = tuple(f"{kind}Scheduler" for kind in KINDS)


class Everywhere:
    """A detector that finds the same face in every picture: random weights draw none."""

    def detect(self, image: np.ndarray) -> list[Detection]:
        return [Detection(box=np.array([5.0, 5, 27, 27]), landmarks=POINTS.double().numpy(), score=1.0)]


def make_step(method: str, guidance: float = 1.0, dtype: torch.dtype = torch.float32, **rollout: Any) -> RewardStep:
    pipeline = make_pipeline()
    if "scheduler" in rollout:
        kind = getattr(diffusers, rollout.pop("scheduler"))
        pipeline.scheduler = kind.from_config(pipeline.scheduler.config)
    base = BaseModel(pipeline, dtype, torch.device("cpu"))
    adapter = make_adapter(base.unet)
    torch.nn.Module.to(adapter, dtype=dtype)
    adapter.attach(base.unet)
    embedder = FaceEmbedder.dlib()
    embedder.encoder.to(dtype)
    settings: dict[str, Any] = {"steps": 4, "last": 2} | rollout
    if method == "draft-lv":
        del settings["last"]
    kind: Any = CONFIGS[method]
    config = kind(preservation=0.5, denoising=0.0, guidance_scale=guidance, **settings)
    return RewardStep(
        base,
        adapter,
        WeightedRewards({"identity": Term(IdentityReward(embedder=embedder), 1.0, None, "face_found")}),
        config,
        embedders=[embedder],
        decoder=FaceDecoder(vae=pipeline.vae),
        detector=Everywhere(),
    )


@pytest.mark.parametrize("guidance", [1.0, 5.0])
@pytest.mark.parametrize("scheduler", SCHEDULERS[:1] + SCHEDULERS[2:3] + SCHEDULERS[4:])
def test_draws_what_the_pipeline_draws(scheduler: str, guidance: float) -> None:
    step = make_step("draft", guidance, scheduler=scheduler)
    batch, pipe = RandomPeople(2).make(0), step.base.pipeline
    noise = torch.randn(2, 4, 16, 16, generator=seeded(3))
    person = step.encode(batch)
    text = step._text(batch, person)
    with step.activate(batch, person):
        found = step.rollout(lambda noisy, t: step._predict(noisy, t, text, batch), noise, seeded(4)).latents
    pipe.load_id_adapter(step.adapter)
    expected = pipe(
        ["a face"] * 2,
        id_embeds=batch.id_embeds,
        latents=noise,
        num_inference_steps=4,
        guidance_scale=guidance,
        output_type="latent",
    ).images
    assert found.requires_grad
    assert (found - expected).abs().max() <= 1e-4 * expected.abs().max()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scheduler", SCHEDULERS)
def test_every_method_learns_with_every_scheduler(method: str, scheduler: str) -> None:
    step = make_step(method, scheduler=scheduler)
    if method == "refl" and scheduler == "DPMSolverMultistepScheduler":
        with pytest.raises(TrainingError, match="predicts x0"), step:
            step(RandomPeople(2).make(0), seeded(1))
        return
    with step:
        found = step(RandomPeople(2).make(0), seeded(1))
        found.total.backward()
    assert found.values.shape == (2,)
    assert set(found.terms) == {"identity", "preservation"}
    assert all(weight.grad is not None and weight.grad.isfinite().all() for weight in step.parameters())


def parameters(step: RewardStep) -> Iterator[torch.Tensor]:
    return (weight for name, weight in step.named_parameters() if "to_v" in name or name.endswith("proj.0.bias"))


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("refl", {"last": 1}),
        ("draft", {"last": 4}),
        ("draft", {"last": 4, "guidance": 3.0}),
    ],
)
def test_gradients_are_those_of_finite_differences(method: str, settings: dict[str, Any]) -> None:
    """Where all steps that the parameters act in have a graph, in float64: the whole chain from weights to reward."""
    settings = {"steps": settings.get("last", 1), **settings}
    step = make_step(method, dtype=torch.float64, **settings)
    step.decoder = FaceDecoder(vae=step.base.pipeline.vae, exact=False, margin=SIDE)  # statistics are constants else
    step.config = replace(step.config, preservation=0.0)
    batch = RandomPeople(2).make(0)
    parts: dict[str, Any] = vars(batch)
    wide: Any = {
        name: part.double() for name, part in parts.items() if torch.is_tensor(part) and part.is_floating_point()
    }
    batch = Batch(**{**parts, **wide})

    def value() -> torch.Tensor:
        with step:
            return step(batch, seeded(2)).total

    with step:
        step(batch, seeded(2)).total.backward()
    weights = list(parameters(step))
    directions = [torch.randn(w.shape, generator=seeded(i), dtype=w.dtype) for i, w in enumerate(weights)]
    expected = sum((w.grad * d).sum() for w, d in zip(weights, directions, strict=True))  # pyright: ignore
    values = []
    with torch.no_grad():
        for move in (1e-7, -2e-7):
            for weight, direction in zip(weights, directions, strict=True):
                weight += move * direction
            values.append(value())
    torch.testing.assert_close((values[0] - values[1]) / 2e-7, expected, rtol=2e-3, atol=1e-9, check_dtype=False)


def test_alignprop_is_draft_of_a_random_length() -> None:
    batch, lengths = RandomPeople(2).make(0), set()
    for seed in range(6):
        chosen = int(torch.randint(0, 3, (1,), generator=_after_noise(seed)))
        lengths.add(chosen)
        gradients = []
        for method, last in (("alignprop", 3), ("draft", 3 - chosen)):
            step = make_step(method, steps=3, last=last)
            with step:
                step(batch, seeded(seed)).total.backward()
            gradients.append([weight.grad for weight in step.parameters()])
        for a, b in zip(*gradients, strict=True):
            torch.testing.assert_close(a, b)
    assert len(lengths) > 1


def _after_noise(seed: int) -> torch.Generator:
    random = seeded(seed)
    torch.randn(2, 4, 16, 16, generator=random)
    return random


def test_preservation_is_against_the_base_model() -> None:
    step = make_step("refl", steps=1, last=1)
    batch = RandomPeople(2).make(0)
    with step:
        found = step(batch, seeded(1))
    assert found.terms["preservation"].mean > 0
    assert step.adapter is not None
    for weight in step.adapter.branches.parameters():
        weight.data.zero_()
    with step:
        assert step(batch, seeded(1)).terms["preservation"].mean < 1e-12


@pytest.mark.parametrize("method", METHODS)
def test_style_is_that_of_the_base_models_picture_of_the_same_noise(method: str) -> None:
    step = make_step(method, guidance=3.0, style=2.0)
    batch = RandomPeople(2).make(0)
    with step:
        found = step(batch, seeded(1))
        found.total.backward()
    assert found.terms["style"].mean > 0
    assert step.adapter is not None
    assert any(weight.grad is not None and weight.grad.any() for weight in step.adapter.branches.parameters())
    for weight in step.adapter.branches.parameters():
        weight.data.zero_()
    same = method in ("draft", "alignprop")  # the others predict the picture from another latent than the last
    with step:
        kept = step(batch, seeded(1)).terms["style"].mean
    assert kept < 1e-10 if same else kept < found.terms["style"].mean


def test_without_a_weight_for_style_nothing_more_is_drawn() -> None:
    plain, styled = make_step("draft", guidance=3.0), make_step("draft", guidance=3.0, style=1.0)
    terms = []
    for step in (plain, styled):
        with step:
            terms.append(step(RandomPeople(2).make(0), seeded(1)).terms)
    assert terms[0]["identity"].mean == terms[1]["identity"].mean
    assert set(terms[1]) - set(terms[0]) == {"style"}


def test_rollouts_that_cannot_be() -> None:
    base = make_pipeline().scheduler
    with pytest.raises(TrainingError, match="last must be between 1 and steps=4, not 5"):
        Rollout(scheduler=base, method="draft", steps=4, last=5)
    for name, message in (
        ("DDMIScheduler", "no scheduler 'DDMIScheduler'"),
        ("UNet2DConditionModel", "no scheduler"),
        ("FlowMatchEulerDiscreteScheduler", "does not fit a noise schedule of DDIMScheduler"),
    ):
        with pytest.raises(TrainingError, match=message):
            make_scheduler(name, base)
