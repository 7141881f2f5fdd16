"""DDPO with the score function (Black et al., arXiv 2305.13301, DDPO-SF)."""

from __future__ import annotations

import logging
from contextlib import ExitStack

import torch

from ..losses import Weighted
from .advantages import advantages
from .batch import Batch
from .black_box import BlackBoxStep
from .randomness import Generators

_log = logging.getLogger(__name__)


class DDPOStep(BlackBoxStep):
    """One training step as a module: draw pictures by a random walk, judge them, make what was judged well likelier.

    The gradient is that of `− advantage · Σ log p(x_{t−1} | x_t)`, the sum estimated from some of the steps. The
    advantage is the reward against the mean of the batch, in its deviations, so a batch needs several samples; those
    whose identity was dropped are compared among themselves. Arguments: see `BlackBoxStep`.
    """

    def forward(self, batch: Batch, random: Generators, stack: ExitStack) -> Weighted:
        """Draw, judge, and weigh; arguments as of `IdentityDenoiser.forward`."""
        if len(batch) == 1:
            _log.warning("DDPO learns nothing from a batch of one picture, which has nothing to be compared with.")
        judged = self.draw(batch, random)
        advantage = advantages(judged.rewards, batch.has_identity.long())
        chosen, walk = self.choose(random), judged.walk
        person = self.person(batch)
        text = self.base.read(batch, person)
        stack.enter_context(self.drawing(batch, person))
        values = torch.zeros_like(advantage)
        for i in chosen:
            t, before, after = walk.timesteps[i], walk.latents[i], walk.latents[i + 1]
            output = self.predict(batch, before, t.expand(len(batch)), text)
            values = values - advantage * self.walk.log_probability(output, t, before, after)
        values = values * len(self.walk.noisy_steps()) / self.learned
        return self.with_words(self.weighted(values, judged), person)
