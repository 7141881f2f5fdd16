"""Stage two with explicit supervision: a swapped face is swapped back, and the photo is the truth (DreamID)."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from ..adapter import IdentityTokens
from ..losses import Term, Weighted, WeightedTerms
from .batch import Batch
from .methods import SwapConfig
from .randomness import Generators, normal
from .reward_backprop import RewardStep
from .rollout import Generated, predict_x0


class SwapStep(RewardStep):
    """One training step: photos with another person's face, with noise → faces of the person → their rewards, and the
    distance to the photos (triplets and explicit supervision of DreamID, arXiv 2504.14509).

    The rollout is what `swap` does, in few steps of DDIM. All of them have a gradient.
    """

    config: SwapConfig  # pyright: ignore[reportIncompatibleVariableOverride]

    def generate(self, batch: Batch, text: dict[str, torch.Tensor], random: Generators) -> Generated:
        """See `RewardStep`."""
        assert batch.swapped is not None
        schedule = self.base.parametrisation
        noisiest = round(self.config.strength * (schedule.num_train_timesteps - 1))
        timesteps = torch.full((len(batch),), noisiest, device=batch.latents.device)
        noise = normal(batch.latents.shape, random).to(batch.latents)
        noisy = self.base.scheduler.add_noise(batch.swapped.to(batch.latents), noise, timesteps)

        def predict(noisy: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
            return self._predict(noisy, timesteps, text, batch)

        output = predict(noisy, timesteps)
        x0 = predict_x0(schedule, predict, output, noisy, timesteps, self.config.steps)
        return Generated(x0, noisy, timesteps, output)

    def further_losses(
        self, batch: Batch, identity: IdentityTokens | None, generated: Generated, random: Generators
    ) -> Iterator[Weighted]:
        """See `RewardStep`."""
        yield from super().further_losses(batch, identity, generated, random)
        if self.config.supervision:
            terms = WeightedTerms(
                {"supervision": Term(supervision_loss, self.config.supervision, None, "has_identity")}
            )
            inputs = {"latents": batch.latents, "x0": generated.latents, "has_identity": batch.has_identity}
            yield terms({**inputs, "face_mask": self.person_masks(batch).amax(1)})


def supervision_loss(x0: torch.Tensor, latents: torch.Tensor, face_mask: torch.Tensor) -> torch.Tensor:
    """Mean squared error of the latents of the face.

    Args:
        x0: (batch, channels, height, width), of the generated picture.
        latents: (batch, channels, height, width), of the photo.
        face_mask: (batch, height, width), 1 in the face.

    Returns:
        (batch,).
    """
    error = (x0.float() - latents.float()).square().mean(1)
    return (error * face_mask).sum((1, 2)) / face_mask.sum((1, 2)).clamp(min=1)
