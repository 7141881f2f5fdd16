"""The training step of few-step models: consistency distillation, and consistency training without a teacher."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import torch
from diffusers import LCMScheduler

from ...adapter import IdentityAdapter, IdentityTokens
from ...files import write_bytes, write_folder
from ...losses import TermLog, Weighted
from ...losses.parametrisation import at_least_float32
from ...tiny.usage import USAGE
from ..base import BaseModel
from ..batch import Batch
from ..randomness import Generators, normal
from ..schedulers import with_schedule_of
from ..step import TrainingStep
from ..trainable import LORA_FILE, UNetLoRA
from .config import ConsistencyConfig
from .schedule import draw_pairs, intervals

SIGMA_DATA, TIMESTEP_SCALING = 0.5, 10.0
"""Of the boundary condition; those of `LCMScheduler`."""

LCM_STEPS = 50
"""Steps of the noise schedule that few timesteps are chosen from, as in `LCMScheduler`."""
SCHEDULER = "scheduler"
"""Folder of the scheduler that the LoRA is made for."""


class ConsistencyStep(TrainingStep):
    """One training step: the same clean latents are predicted from two neighbouring noise levels.

    `f(x, t) = c_skip(t) x + c_out(t) x̂0(x, t)`, which is x at t = 0. The loss is `d(f(x_t, t), sg f(x_s, s))`, s < t:

    - distillation: x_s is one DDIM step of the guided base model from x_t (latent consistency models, arXiv
      2310.04378, eq. 17; LCM-LoRA, arXiv 2311.05556). The target is that of the current weights, as in diffusers'
      script for LoRA.
    - training: x_s has the noise of x_t (improved consistency training, arXiv 2310.14189, eq. 6).

    Args:
        base: The frozen base model.
        adapter: Frozen identity adapter, attached to the base's UNet; None for none.
        lora: The LoRA to train.
        config: The consistency loss.
        guidance_scale: Guidance scale of the teacher.
        updates: Updates of the run, for a doubling schedule.
        draw_steps: Steps that the folder recommends.

    Attributes:
        done: Returns the number of updates so far; the loop of the run sets it.
    """

    def __init__(
        self,
        base: BaseModel,
        adapter: IdentityAdapter | None,
        lora: UNetLoRA,
        config: ConsistencyConfig,
        *,
        guidance_scale: float = 5.0,
        updates: int = 1,
        draw_steps: int = 4,
    ) -> None:
        super().__init__(base, adapter, lora)
        self.config, self.guidance_scale = config, guidance_scale
        self.updates, self.draw_steps = updates, draw_steps
        self.done: Callable[[], int] = lambda: 0

    def forward(self, batch: Batch, random: Generators) -> Weighted:
        """Evaluate the loss of a batch, inside `with step:`; see `IdentityDenoiser.forward`."""
        schedule, device = self.base.parametrisation, batch.latents.device
        count = intervals(self.config, self.done(), self.updates)
        drawn = draw_pairs(self.config, schedule.alphas_cumprod, count, len(batch), random)
        later, earlier = (timesteps.to(device) for timesteps in drawn)
        noise = normal(batch.latents.shape, random).to(device)
        noisy = self._noised(batch.latents, noise, later)
        with torch.no_grad():
            identity = self.encode(batch)
        self.hold(self.activate(batch, identity))
        with torch.no_grad():
            text = self.base.read(batch, identity)
            nearer = (
                self._noised(batch.latents, noise, earlier)
                if self.config.method == "training"
                else self._teacher_step(batch, identity, noisy, later, earlier, text)
            )
            target = self.clean(batch, nearer, earlier, text)
        values = self._distance(self.clean(batch, noisy, later, text), target)
        if self.config.weighted:
            values = values / (self._sigma(later) - self._sigma(earlier))
        log = TermLog(values.detach().sum(), torch.tensor(len(batch)), torch.tensor(0))
        return Weighted(values, {"consistency": log})

    def clean(
        self, batch: Batch, noisy: torch.Tensor, timesteps: torch.Tensor, text: dict[str, torch.Tensor]
    ) -> torch.Tensor:
        """f(x, t), as `LCMScheduler` computes it, inside `activate`."""
        output = at_least_float32(self.predict(batch, noisy, timesteps, text))
        x0 = self.base.parametrisation.predict_x0(output, noisy, timesteps)
        scaled = (TIMESTEP_SCALING * timesteps.float()).view(-1, 1, 1, 1)
        skip = SIGMA_DATA**2 / (scaled**2 + SIGMA_DATA**2)
        return skip * noisy + scaled / (scaled**2 + SIGMA_DATA**2).sqrt() * x0

    def _teacher_step(
        self,
        batch: Batch,
        identity: IdentityTokens | None,
        noisy: torch.Tensor,
        later: torch.Tensor,
        earlier: torch.Tensor,
        text: dict[str, torch.Tensor],
    ) -> torch.Tensor:
        """One DDIM step of the base model with classifier-free guidance, with the adapter and without the LoRA."""
        schedule = self.base.parametrisation
        nothing = self.base.encode([""] * len(batch))
        both = {name: torch.cat([nothing[name].to(part), part]) for name, part in text.items()}
        assert self.lora is not None
        with self.lora.paused():
            output = at_least_float32(self.predict(batch, noisy.repeat(2, 1, 1, 1), later.repeat(2), both))
        without, given = output.chunk(2)
        guided = without + self.guidance_scale * (given - without)
        x0, noise = (f(guided, noisy, later) for f in (schedule.predict_x0, schedule.predict_noise))
        return self._noised(x0, noise, earlier)

    def _noised(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        alpha_bar = self.base.parametrisation.alpha_bar(timesteps).view(-1, 1, 1, 1)
        return alpha_bar.sqrt() * latents + (1 - alpha_bar).sqrt() * noise

    def _sigma(self, timesteps: torch.Tensor) -> torch.Tensor:
        alpha_bar = self.base.parametrisation.alpha_bar(timesteps)
        return ((1 - alpha_bar) / alpha_bar).sqrt()

    def _distance(self, found: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        """(batch,), the squared error or the pseudo-Huber distance; see `DenoisingLoss`."""
        error = (found - target).square().flatten(1).mean(1)
        return (error + self.config.huber**2).sqrt() - self.config.huber if self.config.huber else error

    def few_step_scheduler(self) -> LCMScheduler:
        """The scheduler for few steps with the noise schedule of the base model. It draws at trained timesteps."""
        steps = max(min(self.config.steps, LCM_STEPS), self.draw_steps)
        options = {"clip_sample": False, "thresholding": False, "original_inference_steps": steps}
        return with_schedule_of(LCMScheduler, self.base.pipeline.scheduler, **options)

    def save(self, folder: Path) -> None:
        """Write the LoRA, the scheduler that it is made for, and the recommended settings."""
        assert self.lora is not None
        usage = {"guidance_scale": 1.0, "num_inference_steps": self.draw_steps}
        with write_folder(folder, last=LORA_FILE) as new:
            self.lora.save(new)
            self.few_step_scheduler().save_pretrained(new / SCHEDULER)
            write_bytes(new / USAGE, json.dumps(usage, indent=1).encode())

    def load(self, folder: Path) -> None:
        """Load what `save` wrote."""
        assert self.lora is not None
        self.lora.load(folder)
