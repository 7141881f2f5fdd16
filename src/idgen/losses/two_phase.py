"""The two-phase loss of StableIdentity: the noise at noisy timesteps, the clean picture at the others."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import LossError
from .denoising import masked_mean
from .parametrisation import Parametrisation, at_least_float32


@dataclass(frozen=True, eq=False, kw_only=True)
class TwoPhaseLoss:
    """`‖ε̂ − ε‖²` from the share `phase` of the noise schedule on, `‖x̂0 − x0‖²` below it (arXiv 2401.15975, eq. 4).

    Noisy timesteps decide the layout, and clean ones the details of the face, which the error of x0 weights more.
    Both are masked as the denoising loss is, with weight 1 on the face and `background_weight` elsewhere. ε̂ and x̂0
    follow from the prediction, whatever the network predicts.

    Attributes:
        parametrisation: The noise schedule and the type of prediction.
        phase: Share of the noise schedule, 0.6 in the paper's code.
        background_weight: Weight of pixels outside the face, 0 to 1.

    Raises:
        LossError: The share or the weight is not in [0, 1].
    """

    parametrisation: Parametrisation
    phase: float = 0.6
    background_weight: float = 1.0

    def __post_init__(self) -> None:
        for name in ("phase", "background_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise LossError(f"{name} must be in [0, 1], not {getattr(self, name)}.")

    def __call__(
        self,
        model_output: torch.Tensor,
        noisy_latents: torch.Tensor,
        latents: torch.Tensor,
        noise: torch.Tensor,
        timesteps: torch.Tensor,
        face_mask: torch.Tensor,
    ) -> torch.Tensor:
        """Compare a prediction with the noise or the clean latents.

        Args:
            model_output: (batch, channels, height, width).
            noisy_latents: x_t, of the same shape.
            latents: x0, of the same shape.
            noise: ε, of the same shape.
            timesteps: (batch,), integers.
            face_mask: (batch, 1, height, width) in [0, 1].

        Returns:
            (batch,).
        """
        schedule = self.parametrisation
        noisy, output = at_least_float32(noisy_latents), at_least_float32(model_output)
        x0 = schedule.predict_x0(output, noisy, timesteps)
        early = (timesteps >= self.phase * schedule.num_train_timesteps).view(-1, 1, 1, 1)
        error = torch.where(early, schedule.predict_noise(output, noisy, timesteps) - noise, x0 - latents)
        return masked_mean(error.square().mean(1), face_mask[:, 0], self.background_weight)
