"""DDPO and GRPO against their formulas, and a reward that rises in training."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from idgen.errors import TrainingError
from idgen.losses import Term, Weighted
from idgen.rewards import WeightedRewards
from idgen.training.base import BaseModel
from idgen.training.batch import Batch
from idgen.training.config import LoopConfig, OptimizerConfig
from idgen.training.ddpo import CLIP, DDPOStep, PolicyGradientStep, advantages
from idgen.training.distributed import make_accelerator
from idgen.training.grpo import GRPOStep, Reuse, clipped_objective
from idgen.training.loop import Loop
from idgen.training.methods import DDPOConfig, GRPOConfig
from idgen.training.trainable import UNetLoRA
from tests.components import ONE_LEVEL, make_adapter, make_pipeline, seeded

from .runs import RandomPeople

GROUP = 3


def redness(images: torch.Tensor) -> list[float]:
    """Of an array that numpy makes: nothing to differentiate."""
    pixels = images.numpy()
    return [float(np.mean(picture[0]) - np.mean(picture[2])) for picture in pixels]


def make_step(kind: Any = GRPOStep, **options: Any) -> Any:
    base = BaseModel(make_pipeline(**ONE_LEVEL), torch.float32, torch.device("cpu"))
    adapter = make_adapter(base.unet)
    adapter.attach(base.unet)
    rewards = WeightedRewards(options.pop("rewards", {"redness": Term(redness)}))
    networks = {name: options.pop(name) for name in ("detector", "passes") if name in options}
    config: Any = GRPOConfig if kind is GRPOStep else DDPOConfig
    return kind(base, adapter, rewards, config(**{"steps": 4, **options}), **networks)


def people(size: int) -> Batch:
    batch = RandomPeople(size).make(0)
    return replace(batch, latents=batch.latents[..., :8, :8])


def run(step: PolicyGradientStep, batch: Batch, seed: int = 1) -> Weighted:
    step.zero_grad()
    with step:
        found = step(batch, [seeded(100 * seed + i) for i in range(len(batch))])
        found.total.backward()
    return found


def gradient(step: PolicyGradientStep) -> torch.Tensor:
    return torch.cat([weight.grad.flatten() for weight in step.parameters() if weight.grad is not None])


def test_advantages_are_relative_to_the_group() -> None:
    rewards = torch.tensor([1.0, 2, 3, 5, 5, 7, -1, 3])
    found = advantages(rewards, torch.tensor([0, 0, 0, 1, 1, 2, 3, 3]))
    expected = [-((3 / 2) ** 0.5), 0, (3 / 2) ** 0.5, 0, 0, 0, -1, 1]  # the deviation of 1, 2, 3 is √(2/3)
    torch.testing.assert_close(found, torch.tensor(expected))
    assert advantages(torch.tensor([0.0] * 99 + [1]), torch.zeros(100)).max() == CLIP
    assert not advantages(torch.full((3,), 0.1) + 1e-8 * torch.arange(3), torch.zeros(3)).any()


def test_a_ratio_gains_nothing_beyond_the_clip() -> None:
    ratio = torch.tensor([1.5, 0.5, 1.5, 0.5, 1.1, 1.0])
    advantage = torch.tensor([1.0, 1, -1, -1, 2, 3])
    expected = [1.2, 0.5, -1.5, -0.8, 2.2, 3]  # min(ρ A, clip(ρ, 0.8, 1.2) A)
    torch.testing.assert_close(clipped_objective(ratio, advantage, 0.2), torch.tensor(expected))


def test_the_first_update_is_that_of_the_score_function() -> None:
    """ρ is 1 and its gradient that of log p, nothing is clipped, and the policy is that of the start."""
    step = make_step(group=GROUP, learned=2, kl=0.5)
    found = run(step, people(2))
    rewarded = step._generated(lambda: None)
    pictures = step.base.decode(rewarded.trajectory.x0).clamp(0, 1)
    advantage = advantages(torch.tensor(redness(pictures)), _groups(2))
    torch.testing.assert_close(found.values.detach(), -advantage, rtol=1e-3, atol=1e-4)
    assert found.terms["kl"].sum == found.terms["clipped"].sum == 0
    again, loss = make_step(group=GROUP, learned=2, kl=0.0), torch.zeros(())
    batch, trajectory = rewarded.batch, rewarded.trajectory
    one = seeded(100)
    for _ in range(GROUP * 5):  # what the first sample's pictures have drawn: noise, and that of each step
        torch.randn(1, *batch.latents.shape[1:], generator=one)
    chosen = again.choose(one)
    with again.activate(batch, again.encode(batch)):
        text = again.base.read(batch)
        for i in chosen:
            t, before, after = trajectory.timesteps[i], trajectory.latents[i], trajectory.latents[i + 1]
            output = again.predict(batch, before, t.expand(len(batch)), text)
            probability = again.sampler.log_probability(output, t, before, after)
            loss = loss - (advantage * probability).mean() / len(chosen)
        loss.backward()
    torch.testing.assert_close(gradient(step), gradient(again), rtol=1e-3, atol=1e-6)


def _groups(samples: int) -> torch.Tensor:
    return torch.arange(samples).repeat_interleave(GROUP)


def test_later_updates_use_the_same_pictures_and_are_clipped() -> None:
    step = make_step(group=GROUP, updates=2, clip=1e-6, kl=0.5, learned=2)
    assert step.at_rest
    first = run(step, people(2))
    assert not step.at_rest
    start = [weight.detach().clone() for weight in step.parameters()]
    with torch.no_grad():
        for weight in step.parameters():
            weight += 0.01 * torch.randn(weight.shape, generator=seeded(3))
    moved = [weight.detach().clone() for weight in step.parameters()]
    second = run(step, people(2), seed=2)
    assert step.at_rest
    assert second.terms["reward"].sum == first.terms["reward"].sum
    assert second.terms["clipped"].sum > 0
    assert second.terms["kl"].sum > 0
    assert all(
        torch.equal(a, b) for a, b in zip(moved, step.parameters(), strict=True)
    )  # put back after the reference
    third = run(step, people(2), seed=3)
    assert third.terms["reward"].sum != first.terms["reward"].sum
    assert all(torch.equal(a, b) for a, b in zip(start, step._initial._weights, strict=True))


def test_the_divergence_is_from_the_policy_of_the_start() -> None:
    """Of an adapter the adapter that it was; of a LoRA that begins, the base model alone."""
    base = BaseModel(make_pipeline(**ONE_LEVEL), torch.float32, torch.device("cpu"))
    rewards = WeightedRewards({"redness": Term(redness)})
    config = GRPOConfig(group=2, steps=3, learned=2, kl=1.0)
    step = GRPOStep(base, None, rewards, config, lora=UNetLoRA(base.unet, 2))
    for weight in step.parameters():
        torch.nn.init.normal_(weight, std=0.3)
    batch = RandomPeople(2).make(0)
    rewarded = step.generate(batch, seeded(1))
    plain = BaseModel(make_pipeline(**ONE_LEVEL), torch.float32, torch.device("cpu"))
    for i, found in step._references(rewarded, [0, 1]).items():
        latents, t = rewarded.trajectory.latents[i], rewarded.trajectory.timesteps[i]
        with torch.no_grad():
            expected = plain.predict(latents, t.expand(2), plain.encode(batch.prompts))
        torch.testing.assert_close(found, expected)


def test_training_increases_the_reward() -> None:
    step, batch = make_step(learned=3, updates=1, kl=0.001), people(2).repeat(8)
    before = step.generate(batch, seeded(1000)).rewards
    optimizer = torch.optim.Adam(step.parameters(), 1e-2)
    for i in range(10):
        run(step, people(2), seed=i)
        optimizer.step()
    gained = step.generate(batch, seeded(1000)).rewards - before  # of the same noise
    assert gained.mean() > 3 * gained.std() / 4


def test_ddpo_takes_the_batch_for_one_group() -> None:
    """With as many pictures of one person it is the first update of GRPO, but for the sum over the steps."""
    ddpo, grpo = make_step(DDPOStep, learned=2), make_step(group=6, learned=2, kl=0.0)
    for step, batch in ((ddpo, people(1).repeat(6)), (grpo, people(1))):
        with step:
            step(batch, seeded(1)).total.backward()
    assert gradient(ddpo).any()
    torch.testing.assert_close(gradient(ddpo), len(ddpo.sampler.noisy_steps()) * gradient(grpo), rtol=1e-3, atol=1e-6)


def test_faces_are_detected_only_if_a_reward_reads_them() -> None:
    class Never:
        def detect(self, image: np.ndarray) -> list[Any]:
            raise AssertionError

    run(make_step(DDPOStep, detector=Never()), people(2))
    found: list[int] = []

    def sees(images: torch.Tensor, face_found: torch.Tensor) -> torch.Tensor:
        found.append(int(face_found.sum()))
        return images.mean((1, 2, 3))

    class Blind:
        def detect(self, image: np.ndarray) -> list[Any]:
            return []

    run(make_step(DDPOStep, detector=Blind(), rewards={"sees": Term(sees)}), people(2))
    assert found == [0]


def test_a_batch_of_one_gives_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = run(make_step(DDPOStep), people(1))
    assert "learns nothing from a batch of one" in caplog.text
    assert not found.values.any()
    assert run(make_step(group=2), people(1)).values.any()


def test_a_run_stops_where_it_can_go_on_exactly(tmp_path: Path) -> None:
    """Told to stop between two updates from the same pictures, it makes both, for each of the passes."""
    config = LoopConfig(max_train_steps=6, checkpointing_steps=2, train_batch_size=2, gradient_accumulation_steps=2)
    step = make_step(group=2, updates=2, passes=2, learned=1, steps=3)
    accelerator = make_accelerator(config, tmp_path)
    loop = Loop(step, RandomPeople(2), tmp_path, config, OptimizerConfig(), accelerator)
    step.register_forward_hook(lambda *_: setattr(loop.stop, "requested", loop.done >= 2))
    assert loop.run() == 4


def test_objects_are_made_once_for_each_pass_of_several_updates() -> None:
    made = iter(range(100))
    reuse: Reuse[int] = Reuse(passes=2, updates=3)
    assert [reuse(lambda: next(made)) for _ in range(14)] == [0, 1] * 3 + [2, 3] * 3 + [4, 5]
    with pytest.raises(TrainingError, match="at least 1, not 1 and 0"):
        Reuse(1, 0)


def test_settings_that_no_step_could_use() -> None:
    for wrong, message in (
        ({"group": 1}, "group must be at least 2, not 1"),
        ({"steps": 1}, "steps must be at least 2, not 1"),
        ({"clip": 0.0}, "clip > 0"),
        ({"kl": -1.0}, "kl >= 0"),
    ):
        with pytest.raises(TrainingError, match=message):
            make_step(**wrong)
