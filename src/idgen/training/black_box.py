"""What methods for rewards without a gradient share: pictures drawn by a random walk, and what the rewards say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch

from ..adapter import IdentityAdapter
from ..faces import FaceDetector
from ..losses import LazyInputs, TermLog, Weighted, find_landmarks
from ..rewards import WeightedRewards
from .base import BaseModel
from .batch import Batch
from .randomness import Generators, normal
from .step import TrainingStep
from .walk import RandomWalk, Walk


class Judged(NamedTuple):
    """Pictures that were drawn for a batch.

    Attributes:
        batch: What they were drawn from, a row for each picture.
        walk: How they were drawn.
        rewards: (pictures,), on the device of the latents.
        terms: What each reward said.
    """

    batch: Batch
    walk: Walk
    rewards: torch.Tensor
    terms: dict[str, TermLog]


class BlackBoxStep(TrainingStep):
    """Draws and judges; `DDPOStep` and `GRPOStep` say what is learned from it.

    Args:
        base: See `TrainingStep`; so are `adapter` and `parts`.
        rewards: Read `images` (batch, 3, height, width) in [0, 1], `prompts`, `persons` and `target_embeds`; with a
            detector also what `IdentityReward` reads.
        detector: Finds the faces in what was drawn, if a reward reads them.
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
        self.walk = RandomWalk(base.scheduler, steps)
        self.learned = min(learned, len(self.walk.noisy_steps()))

    @torch.no_grad()
    def draw(self, batch: Batch, random: Generators) -> Judged:
        """A picture for each sample, judged; the batch's latents serve for their shape."""
        person = self.person(batch)
        text = self.base.read(batch, person)
        noise = normal(batch.latents.shape, random).to(batch.latents)
        with self.drawing(batch, person):
            walk = self.walk.draw(lambda x, t: self.predict(batch, x, t.expand(len(x)), text), noise, random)
        found = self.rewards(self._judged(walk.finished, batch))
        rewards = found.values.to(noise.device)
        size = torch.tensor(float(len(batch)), device=noise.device)
        return Judged(batch, walk, rewards, {**found.terms, "reward": TermLog(rewards.sum(), size, 0 * size)})

    def choose(self, random: Generators) -> list[int]:
        """Numbers of the steps that are learned from in this update."""
        noisy = self.walk.noisy_steps()
        one = random if isinstance(random, torch.Generator) else random[0]
        return [noisy[i] for i in torch.randperm(len(noisy), generator=one)[: self.learned].tolist()]

    def _judged(self, latents: torch.Tensor, batch: Batch) -> LazyInputs:
        """What rewards read of the pictures."""
        ready = {
            "images": self.base.decode(latents).clamp(0, 1),
            "prompts": batch.prompts,
            "persons": batch.persons,
            "target_embeds": batch.target_embeds,
            "has_identity": batch.has_identity,
        }
        if self.detector is None:
            return LazyInputs(ready, {})
        detector = self.detector
        lazy: dict[str, Callable[[], Any]] = {
            "reference_embeds": lambda: batch.target_embeds,
            "face_images": lambda: inputs["images"],
            "faces": lambda: find_landmarks(inputs["images"], detector),
            "landmarks": lambda: inputs["faces"].points,
            "face_found": lambda: inputs["faces"].found,
        }
        inputs = LazyInputs(ready, lazy)
        return inputs

    @staticmethod
    def weighted(values: torch.Tensor, judged: Judged, **terms: torch.Tensor) -> Weighted:
        """Losses and everything that is logged: what rewards said, and the means of further values, (pictures,)."""
        size = torch.tensor(float(len(values)), device=values.device)
        logs = {name: TermLog(part.detach().sum(), size, 0 * size) for name, part in terms.items()}
        return Weighted(values, {**judged.terms, **logs})
