"""Pictures drawn in training, with the gradient through the last steps."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import diffusers
import torch

from ..errors import TrainingError
from .randomness import Generators, integers, normal

Method = Literal["refl", "draft", "draft-lv", "alignprop"]
Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Scaled noisy latents (batch, …) and a timestep → the prediction, guidance included."""


class Drawn(NamedTuple):
    """Clean latents with a graph, and the last prediction that has one.

    Attributes:
        latents: (rows, channels, height, width); as many rows as pictures, or copies of them one after another.
        noisy: What the last prediction with a graph was made from, as the UNet sees it.
        timestep: When.
        output: That prediction.
    """

    latents: torch.Tensor
    noisy: torch.Tensor
    timestep: torch.Tensor
    output: torch.Tensor


def make_scheduler(name: str | None, base: Any) -> Any:
    """A scheduler by diffusers' name, with the noise schedule of another; that one itself if no name is given.

    Raises:
        TrainingError: diffusers has none of that name, or it is not one for noise schedules like the base model's.
    """
    if name is None:
        return base
    kind = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise TrainingError(f"diffusers has no scheduler '{name}'; try DDIMScheduler or EulerDiscreteScheduler.")
    if not all(hasattr(kind, part) for part in ("scale_model_input", "add_noise", "step")):
        raise TrainingError(f"{name} does not fit a noise schedule of {type(base).__name__}; try DDIMScheduler.")
    return kind.from_config(base.config, timestep_spacing="trailing")  # pyright: ignore[reportAttributeAccessIssue]


@dataclass(frozen=True, eq=False, kw_only=True)
class Rollout:
    """Draws latents from noise and keeps the graph of a part of the way.

    - `"refl"` (ImageReward, arXiv 2304.05977): without a graph to a random one of the last steps, and from there x0 in
      one prediction. ID-Aligner (arXiv 2404.15449) trains adapters so.
    - `"draft"` (arXiv 2309.17400, DRaFT-K): the last steps with their graph, to the end.
    - `"draft-lv"`: the finished latent, noised again a little several times, and one prediction from each: the same
      gradient in the mean with less variance.
    - `"alignprop"` (arXiv 2310.03739): as draft, with a random number of last steps.

    Attributes:
        scheduler: Any of diffusers; one whose step cannot be differentiated fails with torch's own error.
        method: See above.
        steps: Denoising steps.
        last: How many last steps have a graph ("draft"), or are chosen from ("refl", "alignprop").
        copies: Of each picture, for "draft-lv".

    Raises:
        TrainingError: `last` is not between 1 and `steps`.
    """

    scheduler: Any
    method: Method = "refl"
    steps: int = 20
    last: int = 5
    copies: int = 2

    def __post_init__(self) -> None:
        if not 1 <= self.last <= self.steps:
            raise TrainingError(f"A rollout keeps the graph of 1 to all {self.steps} of its steps, not {self.last}.")
        config = dict(self.scheduler.config)
        # what is clipped has no gradient
        unclipped = {name: False for name in ("clip_sample", "thresholding") if name in config}
        object.__setattr__(self, "scheduler", type(self.scheduler).from_config(config | unclipped))

    def __call__(self, predict: Predict, noise: torch.Tensor, random: Generators) -> Drawn:
        """Draw.

        Args:
            predict: The UNet, with its prompts and guidance.
            noise: (batch, channels, height, width), of unit variance.
            random: On the CPU, for the batch or for each sample; chooses the step, which is one for all, and serves
                schedulers that add noise.
        """
        self.scheduler.set_timesteps(self.steps, device=noise.device)
        times = self.scheduler.timesteps
        chosen = int(integers(len(times) - self.last, len(times), len(noise), random)[0])
        first = {"draft": len(times) - self.last, "draft-lv": len(times)}.get(self.method, chosen)
        latents = noise * self.scheduler.init_noise_sigma
        drawn = None
        for i, t in enumerate(times):
            with nullcontext() if i >= first else torch.no_grad():
                noisy = self.scheduler.scale_model_input(latents, t)
                output = predict(noisy, t)
                found = self._step(output, t, latents, random)
            if self.method == "refl" and i == first:
                return Drawn(self._clean(found), noisy, t, output)
            latents = found.prev_sample
            drawn = Drawn(latents, noisy, t, output)
        assert drawn is not None
        return self._again(predict, latents, times[-1], random) if self.method == "draft-lv" else drawn

    def _again(self, predict: Predict, latents: torch.Tensor, t: torch.Tensor, random: Generators) -> Drawn:
        """Noise the finished latents to the last step again, and predict from there."""
        parts = []
        for _ in range(self.copies):
            noise = normal(latents.shape, random).to(latents)
            self.scheduler.set_timesteps(self.steps, device=latents.device)  # multistep schedulers remember
            noised = self.scheduler.add_noise(latents, noise, t.expand(len(latents)))
            noisy = self.scheduler.scale_model_input(noised, t)
            output = predict(noisy, t)
            parts.append(Drawn(self._step(output, t, noised, random).prev_sample, noisy, t, output))
        names = ("latents", "noisy", "output")
        latents, noisy, output = (torch.cat([getattr(part, name) for part in parts]) for name in names)
        return Drawn(latents, noisy, t, output)

    def _step(self, output: torch.Tensor, t: torch.Tensor, latents: torch.Tensor, random: Generators) -> Any:
        takes_generator = "generator" in inspect.signature(self.scheduler.step).parameters
        options = {"generator": random} if takes_generator else {}
        return self.scheduler.step(output, t, latents, **options)

    def _clean(self, found: Any) -> torch.Tensor:
        names = ("pred_original_sample", "denoised")
        clean = next((x for name in names if (x := getattr(found, name, None)) is not None), None)
        if clean is None:
            raise TrainingError(f"'refl' needs a scheduler that predicts x0, not {type(self.scheduler).__name__}.")
        return clean
