"""Identities in training: read as a pipeline reads them, and without effect where they were dropped."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch

from idgen import Identity
from idgen.adapter import ScaleSchedule
from idgen.errors import EncoderMismatchError
from idgen.losses import FaceEmbedder, Term, WeightedTerms
from idgen.pipelines.loaded import LoadedAdapter
from idgen.rewards import IdentityReward
from idgen.training.batch import Batch
from idgen.training.config import LossConfig
from idgen.training.ddpo import DDPOStep
from idgen.training.grpo import GRPOStep
from idgen.training.rollout import Rollout, ShortRollout, make_scheduler
from idgen.training.step import TrainingStep
from tests.components import ONE_LEVEL, seeded

from .runs import RandomPeople, make_step
from .test_policy_gradient import make_step as make_policy_gradient_step
from .test_rollout import METHODS, Everywhere
from .test_rollout import make_step as make_reward_step

COMPARE: dict[str, Any] = dict.fromkeys(("identity", "contrastive", "triplet", "threshold", "mann_whitney"), "1@1")
DROPPED = 1


def denoiser(mode: str, losses: LossConfig) -> TrainingStep:
    options: dict[str, Any] = {"prior": torch.randn(4, 128, generator=seeded(8))}
    if mode != "target landmarks":
        options["detector"] = Everywhere()
    step = make_step(losses=losses, unet=ONE_LEVEL, **options)
    if mode == "rollout":
        scheduler = make_scheduler("LCMScheduler", step.base.pipeline.scheduler)
        step.rollout = ShortRollout(rollout=Rollout(scheduler=scheduler, method="draft", steps=2, last=2))
    return step


def stage_one(mode: str) -> tuple[TrainingStep, TrainingStep]:
    """With all losses that compare with the person, and with none."""
    compare = LossConfig.only(**COMPARE, negatives=4, prior_dir="prior")
    return denoiser(mode, compare), denoiser(mode, LossConfig.only())


def stage_two(method: str) -> tuple[TrainingStep, TrainingStep]:
    """With the identity reward, and with a reward that is always zero."""
    step, without = make_reward_step(method), make_reward_step(method)
    without.rewards = type(without.rewards)({"nothing": Term(lambda images: 0 * images.mean((1, 2, 3)))})
    return step, without


def policy_gradient(kind: Any) -> tuple[TrainingStep, TrainingStep]:
    """With the identity reward, and with a reward that is always zero."""
    identity = Term(IdentityReward(embedder=FaceEmbedder.dlib()), 1.0, None, "face_found")
    nothing = Term(lambda images: 0 * images.mean((1, 2, 3)))
    options: dict[str, Any] = {"detector": Everywhere(), "learned": 2}
    if kind is GRPOStep:
        options |= {"group": 3, "updates": 1}
    return (
        make_policy_gradient_step(kind, rewards={"identity": identity}, **options),
        make_policy_gradient_step(kind, rewards={"nothing": nothing}, **options),
    )


MODES = {
    **{f"denoising, {mode}": (stage_one, mode) for mode in ("target landmarks", "predicted landmarks", "rollout")},
    **{f"reward, {method}": (stage_two, method) for method in METHODS},
    "reward, ddpo": (policy_gradient, DDPOStep),
    "reward, grpo": (policy_gradient, GRPOStep),
}


def run(step: TrainingStep, batch: Batch) -> tuple[Any, list[torch.Tensor | None]]:
    with step:
        found = step(batch, [seeded(i) for i in range(len(batch))])
        found.total.backward()
    return found, [weight.grad for weight in step.parameters()]


@pytest.mark.parametrize("name", MODES)
def test_a_dropped_identity_contributes_nothing(name: str) -> None:
    """Neither to a loss or reward that compares with the person nor to a gradient, whoever the person was."""
    make, mode = MODES[name]
    batch = RandomPeople(3).make(0)
    kept = torch.arange(3) != DROPPED
    batch = replace(batch, has_identity=kept, id_embeds=batch.id_embeds * kept[:, None], face_found=kept | True)
    somebody = batch.target_embeds.clone()
    somebody[DROPPED] = torch.randn(128, generator=seeded(9))
    step, without = make(mode)
    found, gradients = run(step, batch)
    step.zero_grad()
    other, others = run(step, replace(batch, target_embeds=somebody))
    plain, _ = run(without, batch)
    of_sample, of_other, of_plain = (each.values.unflatten(0, (3, -1)) for each in (found, other, plain))
    assert torch.equal(of_sample[DROPPED], of_other[DROPPED])
    assert torch.equal(of_sample[DROPPED], of_plain[DROPPED])
    assert not torch.equal(of_sample[0], of_plain[0])
    compares = found.terms.keys() & COMPARE.keys()
    copies = 2 if mode == "draft-lv" else of_sample.shape[1]
    assert compares
    assert all(int(found.terms[name].samples) == 2 * copies for name in compares)
    assert all(int(found.terms[name].invalid) == 0 for name in compares)
    if "contrastive" not in compares:  # which sees the target of the dropped sample as somebody else
        assert torch.equal(found.values, other.values)
        for a, b in zip(gradients, others, strict=True):
            torch.testing.assert_close(a, b, rtol=0, atol=0)


def test_terms_that_read_the_person_are_0_where_the_identity_was_dropped() -> None:
    """Also a custom term without a mask."""

    def own(images: torch.Tensor, reference_embeds: torch.Tensor) -> torch.Tensor:
        return images.mean(1) + reference_embeds.mean(1)

    def blind(images: torch.Tensor) -> torch.Tensor:
        return images.mean(1)

    terms = WeightedTerms({"own": Term(own), "blind": Term(blind, 10.0)})
    inputs = {
        "images": torch.ones(3, 2),
        "reference_embeds": torch.ones(3, 4),
        "has_identity": torch.tensor([True, False, True]),
    }
    found = terms(inputs)
    assert found.values.tolist() == [12, 10, 12]
    assert [int(part) for part in found.terms["own"]] == [4, 2, 0]
    assert terms({**inputs, "has_identity": torch.zeros(3, dtype=torch.bool)}).values.tolist() == [10] * 3


@pytest.mark.parametrize("normalised", [True, False])
@pytest.mark.parametrize("pool_photos", [True, False])
@pytest.mark.parametrize("photos", [1, 3])
def test_training_reads_an_embedding_as_a_pipeline_does(normalised: bool, pool_photos: bool, photos: int) -> None:
    step = make_step(unet=ONE_LEVEL, adapter={"normalised": normalised, "pool_photos": pool_photos})
    raw = 3 * torch.randn(2, photos, 8, generator=seeded(1))
    batch = replace(RandomPeople(2).make(0), id_embeds=raw.squeeze(1))
    people = [Identity(embeddings=embeds, encoder="test") for embeds in raw]
    (expected,) = LoadedAdapter(step.adapter).encode(id_embeds=people, num_prompts=2, together=False)
    found = step.encode(batch)
    assert found.tokens.shape == (2, (1 if pool_photos else photos) * 4, found.tokens.shape[2])
    torch.testing.assert_close(found.tokens, expected.tokens)
    nobody = step.encode(replace(batch, id_embeds=0 * batch.id_embeds))
    torch.testing.assert_close(nobody.tokens[0], nobody.tokens[1])


@pytest.mark.parametrize("lora_rank", [0, 2])
def test_the_base_is_alone_also_with_a_schedule_of_the_scale(lora_rank: int) -> None:
    step = make_step(unet=ONE_LEVEL, adapter={"lora_rank": lora_rank})
    batch, times = RandomPeople(2).make(0), torch.tensor([300, 300])
    for lora in step.adapter.loras.parameters():
        torch.nn.init.normal_(lora, std=0.5)
    step.adapter.scale = ScaleSchedule(scale=0.8, start=0.2)
    step.adapter.lora_scale = None  # follows the scale
    text = step.base.encode(batch.prompts)
    with torch.no_grad():
        expected = step.base.predict(batch.latents, times, text)
        with step.activate(batch, step.encode(batch)):
            before = step.predict(batch, batch.latents, times, text)
            with step.base_only():
                alone = step.predict(batch, batch.latents, times, text)
            after = step.predict(batch, batch.latents, times, text)
    assert torch.equal(alone, expected)
    assert torch.equal(before, after)
    assert not torch.allclose(before, expected, atol=1e-3)


def test_embeddings_of_another_encoder_are_refused() -> None:
    with pytest.raises(EncoderMismatchError, match="'test', the batch holds those of 'sface'"):
        run(make_step(unet=ONE_LEVEL), replace(RandomPeople(2).make(0), encoder="sface"))
