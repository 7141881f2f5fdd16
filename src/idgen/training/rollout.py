"""Pictures generated in training with a gradient: rollouts from noise, and x0 predicted from a noisy latent."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import diffusers
import torch

from ..errors import MissingDependencyError, TrainingError
from ..losses import Parametrisation
from .randomness import Generators, integers, normal
from .schedulers import with_schedule_of

Method = Literal["refl", "draft", "draft-lv", "alignprop"]
Predict = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""Scaled noisy latents (batch, …) and the timestep, one or (batch,) → the prediction, guidance included."""

DISTILLED = "distilled"
"""Name of the distilled LoRA on the UNet."""


class Generated(NamedTuple):
    """Generated latents with a graph, and the last prediction that has one.

    Attributes:
        latents: (rows, channels, height, width), x0; as many rows as pictures, or copies of them one after another.
        noisy: Input of the last prediction with a graph, as the UNet reads it.
        timestep: Timestep of that prediction.
        output: That prediction.
        without_id: (pictures, channels, height, width), x0 of the base model from the same noise, a constant; None
            where no loss reads it.
    """

    latents: torch.Tensor
    noisy: torch.Tensor
    timestep: torch.Tensor
    output: torch.Tensor
    without_id: torch.Tensor | None = None


def make_scheduler(name: str | None, base: Any) -> Any:
    """A scheduler by its name in diffusers, with the noise schedule of `base`; `base` itself without a name.

    Raises:
        TrainingError: diffusers has no scheduler of that name, or it does not fit the base model's noise schedule.
    """
    if name is None:
        return base
    kind = getattr(diffusers, name, None)
    if not (isinstance(kind, type) and issubclass(kind, diffusers.SchedulerMixin)):
        raise TrainingError(f"diffusers has no scheduler '{name}'; try DDIMScheduler or EulerDiscreteScheduler.")
    if not all(hasattr(kind, part) for part in ("scale_model_input", "add_noise", "step")):
        raise TrainingError(f"{name} does not fit a noise schedule of {type(base).__name__}; try DDIMScheduler.")
    return with_schedule_of(kind, base, timestep_spacing="trailing")


@dataclass(frozen=True, eq=False, kw_only=True)
class Rollout:
    """Generates latents from noise and keeps the graph of some of the steps.

    - `"refl"` (ImageReward, arXiv 2304.05977): no graph up to a random one of the last steps, and there x0 in one
      prediction. ID-Aligner (arXiv 2404.15449) trains adapters with it.
    - `"draft"` (arXiv 2309.17400, DRaFT-K): a graph through the last steps.
    - `"draft-lv"`: the final latents are noised to the last step again several times, and x0 is predicted from each:
      the same expected gradient with less variance.
    - `"alignprop"` (arXiv 2310.03739): as draft, with a random number of last steps.

    Attributes:
        scheduler: Any scheduler of diffusers; one whose step cannot be differentiated fails with torch's own error.
        method: See above.
        steps: Denoising steps.
        last: Number of last steps that have a graph ("draft"), or may have one ("refl", "alignprop").
        copies: Noised copies of each picture, for "draft-lv".

    Raises:
        TrainingError: `last` is not between 1 and `steps`.
    """

    scheduler: Any
    method: Method
    steps: int
    last: int = 1
    copies: int = 1

    def __post_init__(self) -> None:
        if not 1 <= self.last <= self.steps:
            raise TrainingError(f"last must be between 1 and steps={self.steps}, not {self.last}.")
        # clipped values have no gradient
        unclipped = {name: False for name in ("clip_sample", "thresholding") if name in self.scheduler.config}
        object.__setattr__(self, "scheduler", type(self.scheduler).from_config(self.scheduler.config, **unclipped))

    def __call__(self, predict: Predict, noise: torch.Tensor, random: Generators) -> Generated:
        """Generate latents.

        Args:
            predict: The UNet with its prompts and guidance.
            noise: (batch, channels, height, width), of unit variance.
            random: On the CPU, for the batch or for each sample. Draws the first step with a graph, one for the whole
                batch, and the noise of schedulers that add noise.
        """
        self.scheduler.set_timesteps(self.steps, device=noise.device)
        times = self.scheduler.timesteps
        chosen = int(integers(len(times) - self.last, len(times), len(noise), random)[0])
        first = {"draft": len(times) - self.last, "draft-lv": len(times)}.get(self.method, chosen)
        latents = noise * self.scheduler.init_noise_sigma
        generated = None
        for i, t in enumerate(times):
            with nullcontext() if i >= first else torch.no_grad():
                noisy = self.scheduler.scale_model_input(latents, t)
                output = predict(noisy, t)
                found = self._step(output, t, latents, random)
            if self.method == "refl" and i == first:
                return Generated(self._x0(found), noisy, t, output)
            latents = found.prev_sample
            generated = Generated(latents, noisy, t, output)
        assert generated is not None
        return self._again(predict, latents, times[-1], random) if self.method == "draft-lv" else generated

    @torch.no_grad()
    def sample(self, predict: Predict, noise: torch.Tensor, random: Generators) -> torch.Tensor:
        """Generate latents to the end, without a graph; arguments as of a call."""
        return replace(self, method="draft")(predict, noise, random).latents

    def _again(self, predict: Predict, latents: torch.Tensor, t: torch.Tensor, random: Generators) -> Generated:
        """Noise the final latents to the last step again, and predict from there."""
        parts = []
        for _ in range(self.copies):
            noise = normal(latents.shape, random).to(latents)
            self.scheduler.set_timesteps(self.steps, device=latents.device)  # multistep schedulers remember
            noised = self.scheduler.add_noise(latents, noise, t.expand(len(latents)))
            noisy = self.scheduler.scale_model_input(noised, t)
            output = predict(noisy, t)
            parts.append(Generated(self._step(output, t, noised, random).prev_sample, noisy, t, output))
        names = ("latents", "noisy", "output")
        latents, noisy, output = (torch.cat([getattr(part, name) for part in parts]) for name in names)
        return Generated(latents, noisy, t, output)

    def _step(self, output: torch.Tensor, t: torch.Tensor, latents: torch.Tensor, random: Generators) -> Any:
        takes_generator = "generator" in inspect.signature(self.scheduler.step).parameters
        options = {"generator": random} if takes_generator else {}
        return self.scheduler.step(output, t, latents, **options)

    def _x0(self, found: Any) -> torch.Tensor:
        names = ("pred_original_sample", "denoised")
        x0 = next((x for name in names if (x := getattr(found, name, None)) is not None), None)
        if x0 is None:
            raise TrainingError(f"'refl' needs a scheduler that predicts x0, not {type(self.scheduler).__name__}.")
        return x0


@dataclass(frozen=True, eq=False, kw_only=True)
class ShortRollout:
    """Pictures generated from noise in few steps, for losses on finished faces (PuLID, arXiv 2404.16022).

    Attributes:
        rollout: Generates the pictures; few steps need a distilled model.
        distilled: Turns the base model into a distilled one, unless it is one.
        prompt: Prompt of the pictures; the default is PuLID's.
    """

    rollout: Rollout
    distilled: DistilledLoRA | None = None
    prompt: str = "portrait, color, cinematic"


class DistilledLoRA:
    """An LCM or Lightning LoRA on a pipeline's UNet, inactive except inside `activate`.

    Args:
        pipeline: A pipeline of diffusers; the LoRA stays on its UNet, frozen.
        name: Folder, file or hub id.

    Raises:
        TrainingError: The LoRA does not exist or does not fit.
        MissingDependencyError: PEFT is not installed.
    """

    def __init__(self, pipeline: Any, name: str) -> None:
        try:
            from peft.tuners.tuners_utils import BaseTunerLayer
        except ImportError as error:
            raise MissingDependencyError(
                "A distilled LoRA needs PEFT: pip install 'idgen-diffusers[train]'"
            ) from error
        try:
            pipeline.load_lora_weights(name, adapter_name=DISTILLED)
        except (OSError, ValueError, RuntimeError) as error:
            raise TrainingError(f"The LoRA '{name}' could not be loaded: {error}") from error
        pipeline.unet.requires_grad_(False)
        self._layers: list[Any] = [layer for layer in pipeline.unet.modules() if isinstance(layer, BaseTunerLayer)]
        self._scale(0.0)

    @contextmanager
    def activate(self) -> Iterator[None]:
        """Activate the LoRA inside the `with`, also for backward passes in it."""
        self._scale(1.0)
        try:
            yield
        finally:
            self._scale(0.0)

    def _scale(self, scale: float) -> None:
        for layer in self._layers:
            layer.set_scale(DISTILLED, scale)


def predict_x0(
    parametrisation: Parametrisation,
    predict: Predict,
    output: torch.Tensor,
    noisy: torch.Tensor,
    timesteps: torch.Tensor,
    steps: int = 1,
) -> torch.Tensor:
    """x0 from x_t in equal steps of DDIM (arXiv 2010.02502, eq. 12, η = 0), each sample from its own timestep.

    x0 from one step is blurred. More steps give sharper faces, at one forward pass of the UNet with its graph each.

    Args:
        parametrisation: Of the base model.
        predict: The UNet.
        output: Its prediction from `noisy`, which is the first step.
        noisy: x_t, (batch, channels, height, width).
        timesteps: t, (batch,) integers.
        steps: Number of steps.

    Returns:
        (batch, channels, height, width).
    """
    x0 = parametrisation.predict_x0(output, noisy, timesteps)
    for left in range(steps - 1, 0, -1):
        earlier = timesteps * left // steps
        at, before = (parametrisation.alpha_bar(t).view(-1, 1, 1, 1) for t in (timesteps, earlier))
        noise = (noisy - at.sqrt() * x0) / (1 - at).sqrt().clamp(min=1e-4)
        noisy = before.sqrt() * x0 + (1 - before).sqrt() * noise
        timesteps, steps = earlier, left
        x0 = parametrisation.predict_x0(predict(noisy, timesteps), noisy, timesteps)
    return x0
