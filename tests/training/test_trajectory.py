"""Trajectories: probabilities and divergences against their definitions, and their gradients."""

from __future__ import annotations

import pytest
import torch
from torch.distributions import Normal, kl_divergence

from idgen.training.trajectory import TrajectorySampler
from tests.components import make_pipeline, seeded


@pytest.fixture(scope="module")
def sampler() -> TrajectorySampler:
    return TrajectorySampler(make_pipeline().scheduler, 4)


def step_of(sampler: TrajectorySampler, number: int, output: torch.Tensor, before: torch.Tensor) -> Normal:
    """DDIM with η = 1, written out (arXiv 2010.02502, eq. 12 and 16)."""
    t = sampler.scheduler.timesteps[number]
    alpha, alpha_before = (sampler.scheduler.alphas_cumprod[int(at)] for at in (t, t - 250))
    sigma = ((1 - alpha_before) / (1 - alpha) * (1 - alpha / alpha_before)).sqrt()
    x0 = (before - (1 - alpha).sqrt() * output) / alpha.sqrt()
    return Normal(alpha_before.sqrt() * x0 + (1 - alpha_before - sigma**2).sqrt() * output, sigma)


def test_probabilities_are_those_of_the_normal_distribution(sampler: TrajectorySampler) -> None:
    output, other, before, noise = (torch.randn(2, 4, 8, 8, generator=seeded(i)) for i in range(4))
    t, normal = sampler.scheduler.timesteps[1], step_of(sampler, 1, output, before)
    after = normal.mean + normal.stddev * noise
    expected = normal.log_prob(after) - normal.log_prob(normal.mean)
    found = sampler.log_probability(output, t, before, after)
    torch.testing.assert_close(found, expected.flatten(1).mean(1), rtol=1e-3, atol=1e-4)
    expected = kl_divergence(normal, step_of(sampler, 1, other, before)).flatten(1).mean(1)
    torch.testing.assert_close(sampler.divergence(output, other, t, before), expected, rtol=1e-3, atol=1e-4)


def test_log_probabilities_are_those_of_the_sampled_noise(sampler: TrajectorySampler) -> None:
    """The noise has unit variance, so the mean of −noise²/2 is −1/2; the last step adds none."""
    noise = torch.randn(2, 4, 32, 32, generator=seeded(1))
    found = sampler.sample(lambda x, t: x * t / 1000, noise, seeded(2))
    assert found.latents.shape == (5, 2, 4, 32, 32)
    assert torch.equal(found.x0, found.latents[-1])
    assert sampler.noisy_steps() == [0, 1, 2]
    torch.testing.assert_close(found.log_probabilities[:3], torch.full((3, 2), -0.5), rtol=0.1, atol=0)
    assert not found.log_probabilities[3].any()


def test_gradients_are_those_of_finite_differences(sampler: TrajectorySampler) -> None:
    output, reference, before, after = (
        torch.randn(2, 4, 4, 4, generator=seeded(i), dtype=torch.float64) for i in range(4)
    )
    for t in sampler.scheduler.timesteps:
        output = output.detach().requires_grad_(True)
        assert torch.autograd.gradcheck(
            lambda x, t=t: sampler.log_probability(x, t, before, after), (output,), eps=1e-5
        )
    for i in sampler.noisy_steps():
        t = sampler.scheduler.timesteps[i]
        assert torch.autograd.gradcheck(
            lambda x, t=t: sampler.divergence(x, reference, t, before), (output,), eps=1e-5
        )
