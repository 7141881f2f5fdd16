"""GRPO for diffusion: group-relative advantages, a clipped ratio, and a penalty on leaving the policy of the start.

Shao et al., arXiv 2402.03300, eq. 3; for denoising steps as in Flow-GRPO (arXiv 2505.05470, eq. 5) and DanceGRPO
(arXiv 2505.07818, eq. 5).
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch

from ..adapter import IdentityAdapter
from ..errors import TrainingError
from ..losses import Weighted
from ..rewards import WeightedRewards
from .advantages import advantages
from .base import BaseModel
from .batch import Batch
from .black_box import BlackBoxStep, Judged
from .randomness import Generators
from .reuse import Reuse
from .start import StartingWeights


class GRPOStep(BlackBoxStep):
    """One training step as a module: several pictures of each prompt and person, each compared with the others.

    With `ρ = p(step) / p_drawn(step)` and the advantage A of a picture in its group, the loss is the mean over the
    chosen steps of `−min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) + β KL(p ‖ p_start)`. The policy of the start is what the
    trained parts were when the step was made: the adapter that the run goes on with, or the base model alone where a
    LoRA begins.

    Pictures are learned from in several updates, each at other steps of the walk; the batches that come meanwhile are
    not used. In the first of them ρ is 1.

    Args:
        base: See `BlackBoxStep`; so are `adapter`, `rewards` and `options`.
        group: Pictures of each sample.
        updates: Updates from the same pictures.
        passes: Passes of one update, the run's `gradient_accumulation_steps`.
        clip: ε; small, since log-probabilities are means over a latent's numbers.
        kl: β; 0 leaves the penalty out.

    Raises:
        TrainingError: A group has fewer than two pictures, or a number is not positive.
    """

    def __init__(
        self,
        base: BaseModel,
        adapter: IdentityAdapter | None,
        rewards: WeightedRewards,
        *,
        group: int = 8,
        updates: int = 2,
        passes: int = 1,
        clip: float = 1e-4,
        kl: float = 0.01,
        **options: Any,
    ) -> None:
        super().__init__(base, adapter, rewards, **options)
        if group < 2:
            raise TrainingError(f"GRPO compares the pictures of a group: it needs at least 2, not {group}.")
        if clip <= 0 or kl < 0:
            raise TrainingError(f"GRPO needs clip > 0 and kl >= 0, not clip={clip} and kl={kl}.")
        self.group, self.clip, self.kl = group, clip, kl
        self._drawn: Reuse[Judged] = Reuse(passes, updates)
        self._start = StartingWeights(self) if kl else None

    @property
    def at_rest(self) -> bool:
        """Whether the next update draws new pictures, so that a checkpoint holds all that the run needs."""
        return self._drawn.is_spent

    def forward(self, batch: Batch, random: Generators, stack: ExitStack) -> Weighted:
        """Draw and judge, or take pictures that were, and weigh; arguments as of `IdentityDenoiser.forward`."""
        several = random if isinstance(random, torch.Generator) else [one for one in random for _ in range(self.group)]
        judged = self._drawn(lambda: self.draw(batch.repeat(self.group), several))
        batch, walk, chosen = judged.batch, judged.walk, self.choose(random)
        advantage = advantages(judged.rewards, torch.arange(len(batch), device=judged.rewards.device) // self.group)
        references = self._references(judged, chosen)
        person = self.person(batch)
        text = self.base.read(batch, person)
        stack.enter_context(self.drawing(batch, person))
        values, divergence, clipped = (torch.zeros_like(advantage) for _ in range(3))
        for i in chosen:
            t, before, after = walk.timesteps[i], walk.latents[i], walk.latents[i + 1]
            output = self.predict(batch, before, t.expand(len(batch)), text)
            ratio = (self.walk.log_probability(output, t, before, after) - walk.log_probabilities[i]).exp()
            values = values - clipped_objective(ratio, advantage, self.clip) / len(chosen)
            clipped = clipped + ((ratio - 1).abs() > self.clip).float() / len(chosen)
            if i in references:
                divergence = divergence + self.walk.divergence(output, references[i], t, before) / len(chosen)
        values = values + self.kl * divergence
        return self.with_words(self.weighted(values, judged, kl=divergence, clipped=clipped), person)

    @torch.no_grad()
    def _references(self, judged: Judged, chosen: list[int]) -> dict[int, torch.Tensor]:
        """What the policy of the start predicts at the chosen steps."""
        if self._start is None:
            return {}
        batch, walk = judged.batch, judged.walk
        with self._start.put_back():
            person = self.person(batch)
            text = self.base.read(batch, person)
            with self.drawing(batch, person):
                return {
                    i: self.predict(batch, walk.latents[i], walk.timesteps[i].expand(len(batch)), text) for i in chosen
                }


def clipped_objective(ratio: torch.Tensor, advantage: torch.Tensor, clip: float) -> torch.Tensor:
    """`min(ρ A, clip(ρ, 1 − ε, 1 + ε) A)`: no gain from making a step more than ε likelier or less likely."""
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)
