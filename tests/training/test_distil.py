"""Few-step models: the consistency function, its teacher, and the schedule of improved consistency training."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, EulerDiscreteScheduler, LCMScheduler

from idgen.commands.shared import load_lora
from idgen.tiny.usage import usage_of
from idgen.training.base import BaseModel
from idgen.training.distil.config import ConsistencyConfig
from idgen.training.distil.schedule import draw_pairs, grid, intervals
from idgen.training.distil.step import ConsistencyStep
from idgen.training.rollout import Rollout
from idgen.training.schedulers import with_schedule_of
from idgen.training.trainable import UNetLoRA
from idgen.training.trajectory import TrajectorySampler
from tests.components import SIDE, make_adapter, make_pipeline, seeded

from .runs import RandomPeople


def make_step(family: str = "sd", prediction: Any = "epsilon", **config: Any) -> ConsistencyStep:
    pipeline = make_pipeline(family)
    pipeline.scheduler = DDIMScheduler(clip_sample=False, steps_offset=1, prediction_type=prediction)
    base = BaseModel(pipeline, torch.float32, torch.device("cpu"))
    adapter = make_adapter(base.unet).requires_grad_(False)
    adapter.attach(base.unet)
    step = ConsistencyStep(base, adapter, UNetLoRA(base.unet, 2), ConsistencyConfig(**config), guidance_scale=3.0)
    for name, weight in step.lora.weights.items():  # pyright: ignore[reportOptionalMemberAccess]
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.1)
    return step


@pytest.mark.parametrize("scheduler", [DDIMScheduler(), LCMScheduler(beta_end=0.02), EulerDiscreteScheduler()])
def test_another_scheduler_keeps_the_noise_schedule(scheduler: Any) -> None:
    """Also where settings are the defaults of one class, which the others do not share."""
    for kind in (LCMScheduler, DDPMScheduler, DDIMScheduler):
        found = with_schedule_of(kind, scheduler)
        torch.testing.assert_close(found.alphas_cumprod, scheduler.alphas_cumprod)
    drawn = [
        TrajectorySampler(scheduler, 4).scheduler,
        Rollout(scheduler=scheduler, method="draft", steps=4).scheduler,
    ]
    for found in drawn:
        torch.testing.assert_close(found.alphas_cumprod, scheduler.alphas_cumprod)
        assert not found.config.get("clip_sample")  # clipped values have no gradient


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_the_consistency_function_is_that_of_the_scheduler_that_draws(prediction: str) -> None:
    step, batch = make_step(prediction=prediction), RandomPeople(1).make(0)
    scheduler = step.few_step_scheduler()
    scheduler.set_timesteps(4)
    with torch.no_grad(), step:
        text = step.base.encode(["a face"])
        for t in (0, int(scheduler.timesteps[-1]), 999):
            time = torch.tensor([t])
            found = step.clean(batch, batch.latents, time, text)
            if t == 0:
                torch.testing.assert_close(found, batch.latents)  # the boundary condition
                continue
            output = step.predict(batch, batch.latents, time, text)
            theirs: Any = scheduler.step(output, t, batch.latents, generator=seeded(0))
            scheduler._step_index = None
            torch.testing.assert_close(found, theirs.denoised)


def test_the_teacher_is_a_guided_ddim_step_of_a_stock_pipeline_with_the_adapter_and_without_the_lora() -> None:
    step, batch = make_step(), RandomPeople(1).make(0)
    stock = make_pipeline()
    scheduler = DDIMScheduler(clip_sample=False, steps_offset=1, set_alpha_to_one=False)
    scheduler.set_timesteps(50)
    adapter = make_adapter(stock.unet)
    adapter.attach(stock.unet)
    later, earlier = torch.tensor([501]), torch.tensor([481])
    with torch.no_grad(), step:
        identity = step.encode(batch)
        text = step.base.encode(["a face"])
        with step.activate(batch, identity):
            found = step._teacher_step(batch, identity, batch.latents, later, earlier, text)
        both = torch.cat([step.base.encode([""])["encoder_hidden_states"], text["encoder_hidden_states"]])
        with adapter.activate([adapter.encode(batch.id_embeds)], 1):
            without, given = stock.unet(batch.latents.repeat(2, 1, 1, 1), 501, both).sample.chunk(2)
        expected: Any = scheduler.step(without + 3.0 * (given - without), 501, batch.latents)
    torch.testing.assert_close(found, expected.prev_sample, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("family", "method"), [("sd", "distillation"), ("sdxl", "distillation"), ("sd", "training")])
def test_only_the_lora_is_trained_and_it_loads_in_stock_diffusers(family: str, method: Any, tmp_path: Path) -> None:
    step = make_step(family, method=method, weighted=method == "training", timesteps="lognormal")
    with step:
        found = step(RandomPeople(3, xl=family == "sdxl").make(0), seeded(1))
        found.total.backward()
    assert found.values.shape == (3,)
    assert {name.partition(".")[0] for name, weight in step.named_parameters() if weight.grad is not None} == {"lora"}
    step.save(tmp_path)
    stock = make_pipeline(family)
    load_lora(stock, str(tmp_path), "few")
    assert isinstance(stock.scheduler, LCMScheduler)
    few = usage_of("tiny", str(tmp_path))
    assert (few.num_inference_steps, few.guidance_scale, few.resolution) == (4, 1.0, 128)
    options = {"num_inference_steps": 2, "guidance_scale": 1.0, "height": SIDE, "width": SIDE, "output_type": "np"}
    ours = step.base.pipeline
    ours.scheduler = step.few_step_scheduler()
    drawn = [pipeline("a face", **options, generator=seeded(2)).images for pipeline in (stock, ours)]
    assert abs(drawn[0] - drawn[1]).max() < 1e-4
    stock.unload_lora_weights()
    assert abs(stock("a face", **options, generator=seeded(2)).images - drawn[0]).max() > 1e-3


@pytest.mark.parametrize("steps", [4, 8, 50])
def test_pictures_are_drawn_at_timesteps_that_are_trained(steps: int) -> None:
    scheduler = make_step(steps=steps).few_step_scheduler()
    scheduler.set_timesteps(4)
    assert set(scheduler.timesteps.tolist()) <= set(grid(1000, steps).tolist())


def test_consistency_training_of_one_interval_compares_with_the_photo() -> None:
    """With one interval the target is x0 itself: f(x, 0) = x."""
    step, batch = make_step(method="training", steps=1, huber=0.0), RandomPeople(2).make(0)
    random = seeded(1)
    later, earlier = draw_pairs(step.config, step.base.parametrisation.alphas_cumprod, 1, 2, random)
    assert (later.tolist(), earlier.tolist()) == ([999, 999], [0, 0])
    noise = torch.randn(batch.latents.shape, generator=random)
    with torch.no_grad(), step:
        values = step(batch, seeded(1)).values
        noisy = step.base.scheduler.add_noise(batch.latents, noise, later)
        found = step.clean(batch, noisy, later, step.base.encode(batch.prompts))
        target = step.base.scheduler.add_noise(batch.latents, noise, earlier)
    torch.testing.assert_close(values, (found - target).square().flatten(1).mean(1))


def test_the_schedule_of_improved_consistency_training() -> None:
    """N(k) = min(s0 2^⌊k/K'⌋, s1) with K' = ⌊K / (log2⌊s1/s0⌋ + 1)⌋: 10, 20, … 1280 in eight equal parts."""
    config = ConsistencyConfig(doubling=True, steps=1280, first_steps=10)
    found = [intervals(config, k, 800) for k in range(800)]
    assert [found[k] for k in range(0, 800, 100)] == [10 * 2**i for i in range(8)]
    assert found == sorted(found)
    assert intervals(ConsistencyConfig(steps=50), 7, 800) == 50
    for count in (1, 3, 50, 999, 1280):
        points = grid(1000, count)
        assert points[0] == 0
        assert points[-1] == 999
        assert (points.diff() > 0).all()
        assert len(points) == count + 1 or count > 500
    scheduler = LCMScheduler()
    scheduler.set_timesteps(50)
    assert set(grid(1000, 50)[1:].tolist()) == set(scheduler.timesteps.tolist())


def test_lognormal_pairs_are_neighbours_with_the_published_probabilities() -> None:
    alphas = torch.linspace(0.999, 0.01, 1000)
    config = ConsistencyConfig(timesteps="lognormal")
    later, earlier = draw_pairs(config, alphas, 4, 4000, seeded(3))
    points = grid(1000, 4)
    logs = ((1 - alphas[points]) / alphas[points]).sqrt().log()
    edges = torch.erf((logs - config.lognormal_mean) / (math.sqrt(2) * config.lognormal_std))
    expected = edges.diff() / edges.diff().sum()
    counts = torch.stack([(earlier == point).float().mean() for point in points[:-1]])
    torch.testing.assert_close(counts, expected, atol=0.03, rtol=0)
    places = {int(point): number for number, point in enumerate(points)}
    assert all(places[int(a)] == places[int(b)] + 1 for a, b in zip(later, earlier, strict=True))
