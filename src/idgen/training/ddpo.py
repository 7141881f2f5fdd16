"""Rewards without a gradient, by the policy gradient: DDPO-SF (Black et al., arXiv 2305.13301), and its base class."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple

import torch

from ..adapter import IdentityAdapter
from ..faces import FaceDetector
from ..losses import FaceEmbedder, TermLog, Weighted
from ..rewards import WeightedRewards
from .base import BaseModel
from .batch import Batch
from .methods import DDPOConfig, GRPOConfig
from .randomness import Generators, normal
from .reward_inputs import PictureInputs
from .step import TrainingStep
from .trajectory import Trajectory, TrajectorySampler

_log = logging.getLogger(__name__)

CLIP = 5.0
"""Advantages are clipped to ±5, as in the code of DDPO and of Flow-GRPO."""


class Rewarded(NamedTuple):
    """Pictures generated for a batch, and their rewards.

    Attributes:
        batch: A row for each picture.
        trajectory: The steps to the pictures.
        rewards: (pictures,), on the device of the latents.
        terms: Log of each reward.
    """

    batch: Batch
    trajectory: Trajectory
    rewards: torch.Tensor
    terms: dict[str, TermLog]


class PolicyGradientStep(TrainingStep):
    """The base of DDPO and GRPO: generates pictures as stochastic trajectories, and rewards them.

    Args:
        base: See `TrainingStep`; so are `adapter` and `parts`.
        rewards: See `PictureInputs` for what they may read.
        config: Settings of the method.
        detector: Finds the faces in the pictures, if a reward reads them.
        embedder: Face encoder that tells several people in a picture apart.
    """

    def __init__(
        self,
        base: BaseModel,
        adapter: IdentityAdapter | None,
        rewards: WeightedRewards,
        config: DDPOConfig | GRPOConfig,
        *,
        detector: FaceDetector | None = None,
        embedder: FaceEmbedder | None = None,
        **parts: Any,
    ) -> None:
        super().__init__(base, adapter, **parts)
        self.rewards, self.detector, self.embedder = rewards, detector, embedder
        self.sampler = TrajectorySampler(base.scheduler, config.steps)
        self.learned = min(config.learned, len(self.sampler.noisy_steps()))

    @torch.no_grad()
    def generate(self, batch: Batch, random: Generators) -> Rewarded:
        """Generate and reward a picture for each sample; of the batch's latents only the shape is used."""
        identity = self.encode(batch)
        text = self.base.read(batch, identity)
        noise = normal(batch.latents.shape, random).to(batch.latents)
        with self.activate(batch, identity):
            trajectory = self.sampler.sample(
                lambda x, t: self.predict(batch, x, t.expand(len(x)), text), noise, random
            )
        found = self.rewards(PictureInputs(self.base, trajectory.x0, batch, self.detector, self.embedder))
        rewards = found.values.to(noise.device)
        size = torch.tensor(float(len(batch)), device=noise.device)
        terms = {**found.terms, "reward": TermLog(rewards.sum(), size, 0 * size)}
        return Rewarded(batch, trajectory, rewards, terms)

    def choose(self, random: Generators) -> list[int]:
        """Indices of the steps that have a gradient in this update."""
        noisy = self.sampler.noisy_steps()
        one = random if isinstance(random, torch.Generator) else random[0]
        return [noisy[i] for i in torch.randperm(len(noisy), generator=one)[: self.learned].tolist()]

    @staticmethod
    def weighted(values: torch.Tensor, rewarded: Rewarded, **terms: torch.Tensor) -> Weighted:
        """Losses, (pictures,), with the logs of the rewards and the means of further values, (pictures,)."""
        size = torch.tensor(float(len(values)), device=values.device)
        logs = {name: TermLog(part.detach().sum(), size, 0 * size) for name, part in terms.items()}
        return Weighted(values, {**rewarded.terms, **logs})


class DDPOStep(PolicyGradientStep):
    """One training step: batch → pictures and rewards → log-probabilities, weighted with the advantages.

    The gradient is that of `− advantage · Σ log p(x_{t−1} | x_t)`, the sum estimated from some of the steps. The
    advantage is the reward relative to the mean of the batch, in standard deviations, so a batch needs several
    samples. Samples whose identity was dropped are compared among themselves. Arguments: see `PolicyGradientStep`.
    """

    def forward(self, batch: Batch, random: Generators) -> Weighted:
        """Arguments as of `IdentityDenoiser.forward`."""
        if len(batch) == 1:
            _log.warning("DDPO learns nothing from a batch of one picture, which has nothing to be compared with.")
        rewarded = self.generate(batch, random)
        advantage = advantages(rewarded.rewards, batch.by_picture(batch.has_identity).any(1).long())
        chosen, trajectory = self.choose(random), rewarded.trajectory
        identity = self.encode(batch)
        text = self.base.read(batch, identity)
        self.hold(self.activate(batch, identity))
        values = torch.zeros_like(advantage)
        for i in chosen:
            t, before, after = trajectory.timesteps[i], trajectory.latents[i], trajectory.latents[i + 1]
            output = self.predict(batch, before, t.expand(len(batch)), text)
            values = values - advantage * self.sampler.log_probability(output, t, before, after)
        values = values * len(self.sampler.noisy_steps()) / self.learned
        return self.connected(self.weighted(values, rewarded), identity)


def advantages(rewards: torch.Tensor, groups: torch.Tensor) -> torch.Tensor:
    """`(r − mean) / deviation` over each group (GRPO, arXiv 2402.03300, section 4.1.1), clipped to ±5.

    Args:
        rewards: (pictures,).
        groups: (pictures,), a number for each group.

    Returns:
        (pictures,); 0 where all rewards of a group are equal, so also in a group of one picture.
    """
    same = (groups[:, None] == groups).to(rewards)
    count = same.sum(1)
    apart = rewards - (same @ rewards) / count
    deviation = ((same @ apart.square()) / count).sqrt()
    return torch.where(deviation > 1e-6, apart / deviation.clamp(min=1e-6), 0).clamp(-CLIP, CLIP)
