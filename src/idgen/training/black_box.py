"""Rewards without a gradient: DDPO with the score function (Black et al., arXiv 2305.13301, DDPO-SF)."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from diffusers import DDIMScheduler

from ..adapter import IdentityAdapter
from ..faces import FaceDetector
from ..losses import TermLog, Weighted, find_landmarks
from ..rewards import WeightedRewards
from .base import BaseModel
from .batch import Batch
from .randomness import Generators, normal, uniform
from .step import TrainingStep

CLIP = 5.0
"""Advantages are cut off there, as in the authors' code."""


class BlackBoxStep(TrainingStep):
    """One training step as a module: draw pictures by a random walk, judge them, make what was judged well likelier.

    The walk is DDIM with η = 1, in which every step is a draw from a normal distribution. The gradient is that of
    `− advantage · Σ log p(x_{t−1} | x_t)` over some of the steps; the advantage is the reward against the mean of the
    batch, in its deviations, so a batch needs several samples.

    Args:
        base: See `TrainingStep`; so are `adapter` and `parts`.
        rewards: Read `images` (batch, 3, height, width) in [0, 1], `prompts`, `persons` and `target_embeds`; with a
            detector also what `IdentityReward` reads.
        detector: Finds the faces in what was drawn.
        steps: Denoising steps.
        learned: How many of them, chosen at random, have a gradient in an update.
    """

    def __init__(
        self,
        base: BaseModel,
        adapter: IdentityAdapter | None,
        rewards: WeightedRewards,
        *,
        detector: FaceDetector | None = None,
        steps: int = 20,
        learned: int = 5,
        **parts: Any,
    ) -> None:
        super().__init__(base, adapter, **parts)
        self.rewards, self.detector = rewards, detector
        self.steps, self.learned = steps, min(learned, steps)
        unclipped = {"clip_sample": False, "thresholding": False}
        self.scheduler: Any = DDIMScheduler.from_config({**base.scheduler.config, **unclipped})

    def forward(self, batch: Batch, random: Generators, stack: ExitStack) -> Weighted:
        """Draw, judge, and weigh; arguments as of `IdentityDenoiser.forward`, the latents serve for their shape."""
        person = self.person(batch)
        text = self.base.read(batch, person)
        stack.enter_context(self.drawing(batch, person))
        self.scheduler.set_timesteps(self.steps, device=batch.latents.device)
        walk = self._walk(batch, text, random)
        judged = self._judge(walk[-1][2], batch)
        spread = judged.values.std(unbiased=False).clamp(min=1e-6)
        advantage = ((judged.values - judged.values.mean()) / spread).clamp(-CLIP, CLIP).to(batch.latents.device)
        values = torch.zeros_like(advantage)
        for i in (
            uniform(self.steps, random if isinstance(random, torch.Generator) else random[:1] * self.steps)
            .argsort()[: self.learned]
            .tolist()
        ):
            t, before, after = walk[i]
            output = self.predict(batch, before, t.expand(len(batch)), text)
            values = values - advantage * self.log_probability(output, t, before, after)
        return self.with_words(Weighted(values * self.steps / self.learned, judged.terms), person)

    @torch.no_grad()
    def _walk(
        self, batch: Batch, text: dict[str, torch.Tensor], random: Generators
    ) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """Timestep, latents before and latents after, of each step."""
        latents, walk = normal(batch.latents.shape, random).to(batch.latents), []
        for t in self.scheduler.timesteps:
            output = self.predict(batch, latents, t.expand(len(batch)), text)
            noise = normal(latents.shape, random).to(latents)
            after = self.scheduler.step(output, t, latents, eta=1.0, variance_noise=noise).prev_sample
            walk.append((t, latents, after))
            latents = after
        return walk

    @torch.no_grad()
    def _judge(self, latents: torch.Tensor, batch: Batch) -> Weighted:
        images = self.base.decode(latents).clamp(0, 1)
        inputs: dict[str, Any] = {
            "images": images,
            "prompts": batch.prompts,
            "persons": batch.persons,
            "target_embeds": batch.target_embeds,
            "has_identity": batch.has_identity,
        }
        if self.detector is not None:
            faces = find_landmarks(images, self.detector)
            inputs |= {"face_images": images, "landmarks": faces.points, "face_found": faces.found}
            inputs["reference_embeds"] = batch.target_embeds
        found = self.rewards(inputs)
        size = torch.tensor(float(len(batch)))
        reward = TermLog(found.values.sum(), size, 0 * size)
        return Weighted(found.values, {**found.terms, "reward": reward})

    def log_probability(
        self, output: torch.Tensor, t: torch.Tensor, before: torch.Tensor, after: torch.Tensor
    ) -> torch.Tensor:
        """How likely the step was, (batch,): the mean over the latent's numbers of log N(after; μ, σ²), without what
        does not depend on the prediction. The last step, which adds no noise, counts nothing."""
        last = self.scheduler.config.num_train_timesteps // self.steps
        variance = self.scheduler._get_variance(int(t), int(t) - last)
        if variance <= 1e-8:
            return 0 * output.flatten(1).mean(1)
        nothing = torch.zeros_like(before)
        mean = self.scheduler.step(output, t, before, eta=1.0, variance_noise=nothing).prev_sample
        return (-(after - mean).square() / (2 * variance)).flatten(1).mean(1)
