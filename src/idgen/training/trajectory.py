"""Stochastic denoising trajectories, in which the probability of each step is known."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from diffusers import DDIMScheduler

from .randomness import Generators, normal
from .schedulers import with_schedule_of


class Trajectory(NamedTuple):
    """Generated pictures and the steps to them.

    Attributes:
        timesteps: (steps,), from noise to picture.
        latents: (steps + 1, batch, channels, height, width), before the first step and after each step.
        log_probabilities: (steps, batch), of each step when it was taken; 0 for a step that adds no noise.
    """

    timesteps: torch.Tensor
    latents: torch.Tensor
    log_probabilities: torch.Tensor

    @property
    def x0(self) -> torch.Tensor:
        """(batch, channels, height, width), the latents of the pictures."""
        return self.latents[-1]


class TrajectorySampler:
    """DDIM with η = 1, in which each step is a draw from `N(μ(x_t, t), σ_t²)` (DDPO, arXiv 2305.13301, section 4.2).

    Log-probabilities and divergences are means over the elements of a latent, as in the code of DDPO and of Flow-GRPO
    (arXiv 2505.05470), and leave out terms that do not depend on the prediction.

    Args:
        scheduler: Its noise schedule is used.
        steps: Denoising steps.
    """

    def __init__(self, scheduler: Any, steps: int) -> None:
        unclipped = {"clip_sample": False, "thresholding": False}  # clipped values have no gradient
        self.scheduler: Any = with_schedule_of(DDIMScheduler, scheduler, **unclipped)
        self.steps = steps
        self.scheduler.set_timesteps(steps)

    @torch.no_grad()
    def sample(
        self, predict: Callable[[torch.Tensor, torch.Tensor], torch.Tensor], noise: torch.Tensor, random: Generators
    ) -> Trajectory:
        """Sample trajectories from noise to pictures.

        Args:
            predict: Latents (batch, …) and a timestep → the UNet's prediction.
            noise: (batch, channels, height, width), of unit variance.
            random: On the CPU, for the batch or for each sample.
        """
        times = self.scheduler.timesteps.to(noise.device)
        latents, probabilities = [noise], []
        for t in times:
            output = predict(latents[-1], t)
            step_noise = normal(noise.shape, random).to(noise)
            after = self.scheduler.step(output, t, latents[-1], eta=1.0, variance_noise=step_noise).prev_sample
            probabilities.append(self.log_probability(output, t, latents[-1], after))
            latents.append(after)
        return Trajectory(times, torch.stack(latents), torch.stack(probabilities))

    def noisy_steps(self) -> list[int]:
        """Indices of the steps that add noise: all but the last, with most noise schedules."""
        return [i for i, t in enumerate(self.scheduler.timesteps) if self.variance(t) > 1e-8]

    def variance(self, t: torch.Tensor) -> float:
        """σ_t² of the step that begins at t."""
        stride = self.scheduler.config.num_train_timesteps // self.steps
        return float(self.scheduler._get_variance(int(t), int(t) - stride))

    def log_probability(
        self, output: torch.Tensor, t: torch.Tensor, before: torch.Tensor, after: torch.Tensor
    ) -> torch.Tensor:
        """Of a step, given the UNet's prediction: the mean of −(after − μ)² / 2σ², (batch,); 0 without noise."""
        variance = self.variance(t)
        if variance <= 1e-8:
            return 0 * output.flatten(1).mean(1)
        return (-(after - self._mean(output, t, before)).square() / (2 * variance)).flatten(1).mean(1)

    def divergence(
        self, output: torch.Tensor, reference: torch.Tensor, t: torch.Tensor, before: torch.Tensor
    ) -> torch.Tensor:
        """KL(p ‖ p_ref) of a step, given the predictions of both: the mean of (μ − μ_ref)² / 2σ², (batch,)."""
        difference = self._mean(output, t, before) - self._mean(reference, t, before)
        return (difference.square() / (2 * self.variance(t))).flatten(1).mean(1)

    def _mean(self, output: torch.Tensor, t: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
        no_noise = torch.zeros_like(before)
        return self.scheduler.step(output, t, before, eta=1.0, variance_noise=no_noise).prev_sample
