"""GRPO for diffusion: group-relative advantages, a clipped ratio, and a penalty on leaving the initial policy.

Shao et al., arXiv 2402.03300, eq. 3; for denoising steps as in Flow-GRPO (arXiv 2505.05470, eq. 5) and DanceGRPO
(arXiv 2505.07818, eq. 5).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch import nn

from ..adapter import IdentityAdapter
from ..errors import TrainingError
from ..losses import Weighted
from ..rewards import WeightedRewards
from .base import BaseModel
from .batch import Batch
from .ddpo import PolicyGradientStep, Rewarded, advantages
from .distributed import split_like
from .methods import GRPOConfig
from .randomness import Generators

T = TypeVar("T")


class GRPOStep(PolicyGradientStep):
    """One training step: several pictures of each prompt and person, each compared with the others.

    With `ρ = p(step) / p_generated(step)` and the advantage A of a picture in its group, the loss is the mean over the
    chosen steps of `−min(ρ A, clip(ρ, 1 − ε, 1 + ε) A) + β KL(p ‖ p_initial)`. The initial policy is given by the
    trained parts at the time the step is made: the adapter that the run continues, or the base model alone where a
    LoRA is new.

    The same pictures are used in several updates, each with other steps of the trajectory. Batches that arrive in the
    meantime are not used. In the first of these updates ρ is 1.

    Args:
        base: See `PolicyGradientStep`; so are `adapter`, `rewards`, `config` and `options`.
        passes: Forward passes of one update, the run's `gradient_accumulation_steps`.
    """

    def __init__(
        self,
        base: BaseModel,
        adapter: IdentityAdapter | None,
        rewards: WeightedRewards,
        config: GRPOConfig,
        *,
        passes: int = 1,
        **options: Any,
    ) -> None:
        super().__init__(base, adapter, rewards, config, **options)
        self.config = config
        self._generated: Reuse[Rewarded] = Reuse(passes, config.updates)
        self._initial = InitialWeights(self) if config.kl else None

    @property
    def at_rest(self) -> bool:
        """Whether the next update generates new pictures, so that a checkpoint holds all that the run needs."""
        return self._generated.is_spent

    def forward(self, batch: Batch, random: Generators) -> Weighted:
        """Arguments as of `IdentityDenoiser.forward`."""
        group, clip = self.config.group, self.config.clip
        several = random if isinstance(random, torch.Generator) else [one for one in random for _ in range(group)]
        rewarded = self._generated(lambda: self.generate(batch.repeat(group), several))
        batch, trajectory, chosen = rewarded.batch, rewarded.trajectory, self.choose(random)
        advantage = advantages(rewarded.rewards, torch.arange(len(batch), device=rewarded.rewards.device) // group)
        references = self._references(rewarded, chosen)
        identity = self.encode(batch)
        text = self.base.read(batch, identity)
        self.hold(self.activate(batch, identity))
        values, divergence, clipped = (torch.zeros_like(advantage) for _ in range(3))
        for i in chosen:
            t, before, after = trajectory.timesteps[i], trajectory.latents[i], trajectory.latents[i + 1]
            output = self.predict(batch, before, t.expand(len(batch)), text)
            log_probability = self.sampler.log_probability(output, t, before, after)
            ratio = (log_probability - trajectory.log_probabilities[i]).exp()
            values = values - clipped_objective(ratio, advantage, clip) / len(chosen)
            clipped = clipped + ((ratio - 1).abs() > clip).float() / len(chosen)
            if i in references:
                divergence = divergence + self.sampler.divergence(output, references[i], t, before) / len(chosen)
        values = values + self.config.kl * divergence
        return self.connected(self.weighted(values, rewarded, kl=divergence, clipped=clipped), identity)

    @torch.no_grad()
    def _references(self, rewarded: Rewarded, chosen: list[int]) -> dict[int, torch.Tensor]:
        """The initial policy's predictions at the chosen steps."""
        if self._initial is None:
            return {}
        batch, trajectory = rewarded.batch, rewarded.trajectory
        with self._initial.restored():
            identity = self.encode(batch)
            text = self.base.read(batch, identity)
            with self.activate(batch, identity):
                return {
                    i: self.predict(batch, trajectory.latents[i], trajectory.timesteps[i].expand(len(batch)), text)
                    for i in chosen
                }


def clipped_objective(ratio: torch.Tensor, advantage: torch.Tensor, clip: float) -> torch.Tensor:
    """`min(ρ A, clip(ρ, 1 − ε, 1 + ε) A)`: no gain from changing a step's probability by more than the factor ε."""
    return torch.minimum(ratio * advantage, ratio.clamp(1 - clip, 1 + clip) * advantage)


class Reuse(Generic[T]):
    """Makes one object for each pass of an update, and returns the same objects in the following updates.

    Args:
        passes: Passes of an update.
        updates: Updates that use the same objects.

    Raises:
        TrainingError: A number is not positive.
    """

    def __init__(self, passes: int, updates: int) -> None:
        if passes < 1 or updates < 1:
            raise TrainingError(f"passes and updates must be at least 1, not {passes} and {updates}.")
        self.passes, self.updates = passes, updates
        self._made: list[T] = []
        self._calls = 0

    @property
    def is_spent(self) -> bool:
        """Whether the next call makes a new object."""
        return self._calls % (self.passes * self.updates) == 0

    def __call__(self, make: Callable[[], T]) -> T:
        """The object of this pass."""
        if self.is_spent:
            self._made.clear()
        if len(self._made) < self.passes:
            self._made.append(make())
        self._calls += 1
        return self._made[(self._calls - 1) % self.passes]


class InitialWeights:
    """A copy of a module's trained weights.

    Args:
        module: Its parameters may be moved and split over processes afterwards.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._weights = [weight.detach().clone() for weight in self._trained()]

    @contextmanager
    def restored(self) -> Iterator[None]:
        """Put the copy into the module inside the `with`; no backward pass may run there."""
        trained = self._trained()
        now = [weight.detach().clone() for weight in trained]
        _copy([split_like(initial, weight) for initial, weight in zip(self._weights, trained, strict=True)], trained)
        try:
            yield
        finally:
            _copy(now, trained)

    def _trained(self) -> list[torch.Tensor]:
        return [weight for weight in self._module.parameters() if weight.requires_grad]


@torch.no_grad()
def _copy(source: list[torch.Tensor], target: list[torch.Tensor]) -> None:
    for value, weight in zip(source, target, strict=True):
        weight.copy_(value)
