"""Rewards without a gradient: likelihoods as they are defined, and a reward that rises."""

from __future__ import annotations

from contextlib import ExitStack

import numpy as np
import torch

from idgen.losses import Term
from idgen.rewards import WeightedRewards
from idgen.training.base import BaseModel
from idgen.training.black_box import BlackBoxStep
from tests.components import make_adapter, make_pipeline, seeded

from .runs import RandomPeople


def redness(images: torch.Tensor) -> list[float]:
    """Of an array that numpy makes: nothing to differentiate."""
    pixels = images.numpy()
    return [float(np.mean(picture[0]) - np.mean(picture[2])) for picture in pixels]


def make_step(steps: int = 20, learned: int = 5) -> BlackBoxStep:
    base = BaseModel(make_pipeline(), torch.float32, torch.device("cpu"))
    adapter = make_adapter(base.unet)
    adapter.attach(base.unet)
    return BlackBoxStep(base, adapter, WeightedRewards({"redness": Term(redness)}), steps=steps, learned=learned)


def test_likelihoods_are_those_of_the_normal_distribution() -> None:
    step = make_step(steps=4)
    step.scheduler.set_timesteps(4)
    t = step.scheduler.timesteps[1]
    before, output, noise = (torch.randn(2, 4, 16, 16, generator=seeded(i)) for i in range(3))
    after = step.scheduler.step(output, t, before, eta=1.0, variance_noise=noise).prev_sample
    alpha, alpha_before = (step.scheduler.alphas_cumprod[int(at)] for at in (t, t - 250))
    sigma = ((1 - alpha_before) / (1 - alpha) * (1 - alpha / alpha_before)).sqrt()
    clean = (before - (1 - alpha).sqrt() * output) / alpha.sqrt()
    mean = alpha_before.sqrt() * clean + (1 - alpha_before - sigma**2).sqrt() * output
    normal = torch.distributions.Normal(mean, sigma)
    expected = normal.log_prob(after) - torch.distributions.Normal(mean, sigma).log_prob(mean)
    found = step.log_probability(output, t, before, after)
    torch.testing.assert_close(found, expected.flatten(1).mean(1), rtol=1e-3, atol=1e-4)


def test_gradient_of_a_likelihood_is_that_of_finite_differences() -> None:
    step = make_step(steps=4)
    step.scheduler.set_timesteps(4)
    output, before, after = (torch.randn(2, 4, 4, 4, generator=seeded(i), dtype=torch.float64) for i in range(3))
    for t in step.scheduler.timesteps:  # the last adds no noise
        output = output.detach().requires_grad_(True)
        assert torch.autograd.gradcheck(lambda x, t=t: step.log_probability(x, t, before, after), (output,), eps=1e-5)


def test_what_is_judged_well_becomes_likelier() -> None:
    step = make_step(steps=4, learned=3)
    optimizer = torch.optim.Adam(step.parameters(), 1e-2)
    rewards = []
    for i in range(18):
        with ExitStack() as stack:
            found = step(RandomPeople(16).make(0), seeded(i), stack)
            optimizer.zero_grad()
            found.total.backward()
        optimizer.step()
        rewards.append(float(found.terms["reward"].mean))
    first, last = np.mean(rewards[:5]), np.mean(rewards[-5:])
    assert last > first + 3 * np.std(rewards[:5]), rewards
