"""What the network predicts, and the x0 that follows from a prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

import torch

from ..errors import LossError

PREDICTION_TYPES = ("epsilon", "v_prediction", "sample")


@dataclass(frozen=True, eq=False)
class Parametrisation:
    """The noise schedule and the kind of prediction: `x_t = √ᾱ_t · x0 + √(1 − ᾱ_t) · ε`.

    Attributes:
        alphas_cumprod: (steps,), ᾱ_t of every training timestep, as diffusers' schedulers hold it.
        prediction_type: `"epsilon"`, `"v_prediction"` or `"sample"`, as diffusers names them.

    Raises:
        LossError: The prediction type is not known, ᾱ_t leaves [0, 1], or ε is predicted where ᾱ_t is zero: there
            x0 does not follow from the prediction.
    """

    alphas_cumprod: torch.Tensor
    prediction_type: str = "epsilon"

    def __post_init__(self) -> None:
        if self.prediction_type not in PREDICTION_TYPES:
            raise LossError(f"prediction_type={self.prediction_type!r} is not known; use one of {PREDICTION_TYPES}.")
        table = self.alphas_cumprod
        if table.ndim != 1 or not ((table >= 0) & (table <= 1)).all():
            raise LossError(f"alphas_cumprod must be a vector of numbers in [0, 1], not {tuple(table.shape)}: {table}")
        if self.prediction_type == "epsilon" and (table == 0).any():
            raise LossError("A schedule that ends in pure noise (ᾱ = 0) needs prediction_type='v_prediction'.")

    @classmethod
    def of(cls, scheduler: Any) -> Self:
        """Read both from any diffusers scheduler that has `alphas_cumprod`.

        Raises:
            LossError: The scheduler has none, as those for rectified flow.
        """
        if not isinstance(getattr(scheduler, "alphas_cumprod", None), torch.Tensor):
            raise LossError(f"{type(scheduler).__name__} has no alphas_cumprod; use one that adds noise as DDPM does.")
        return cls(scheduler.alphas_cumprod, scheduler.config.prediction_type)

    @property
    def num_train_timesteps(self) -> int:
        """Number of timesteps of the schedule."""
        return len(self.alphas_cumprod)

    def alpha_bar(self, timesteps: torch.Tensor) -> torch.Tensor:
        """(batch,) integers → ᾱ_t, (batch,).

        Raises:
            LossError: The timesteps are not integers.
        """
        if timesteps.is_floating_point():
            raise LossError(f"Timesteps must be integers, not {timesteps.dtype}.")
        return self.alphas_cumprod.to(timesteps.device)[timesteps]

    def predict_x0(
        self, model_output: torch.Tensor, noisy_latents: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """The x0 that follows from a prediction, with its graph, neither clipped nor thresholded.

        A scheduler's own `step` may clip, and clipped values have no gradient.

        - ε: `(x_t − √(1 − ᾱ) ε) / √ᾱ` (DDIM, arXiv 2010.02502, eq. 9)
        - v: `√ᾱ x_t − √(1 − ᾱ) v` (Salimans and Ho, arXiv 2202.00512, appendix D)

        Args:
            model_output: (batch, channels, height, width).
            noisy_latents: x_t, of the same shape.
            timesteps: (batch,), integers.

        Returns:
            (batch, channels, height, width), float32 or better.
        """
        signal, noise = self._factors(timesteps, noisy_latents.ndim)
        if self.prediction_type == "epsilon":
            return (noisy_latents - noise * model_output) / signal
        if self.prediction_type == "v_prediction":
            return signal * noisy_latents - noise * model_output
        return at_least_float32(model_output)

    def predict_noise(
        self, model_output: torch.Tensor, noisy_latents: torch.Tensor, timesteps: torch.Tensor
    ) -> torch.Tensor:
        """The ε that follows from a prediction, with its graph; shapes as for `predict_x0`.

        From v, `√(1 − ᾱ) x_t + √ᾱ v`; from x0, `(x_t − √ᾱ x0) / √(1 − ᾱ)`.
        """
        signal, noise = self._factors(timesteps, noisy_latents.ndim)
        if self.prediction_type == "epsilon":
            return at_least_float32(model_output)
        if self.prediction_type == "v_prediction":
            return noise * noisy_latents + signal * model_output
        return (noisy_latents - signal * model_output) / noise

    def target(self, latents: torch.Tensor, noise: torch.Tensor, timesteps: torch.Tensor) -> torch.Tensor:
        """The target of the prediction; v is `√ᾱ ε − √(1 − ᾱ) x0`. Shapes as for `predict_x0`."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return latents
        signal_factor, noise_factor = self._factors(timesteps, latents.ndim)
        return signal_factor * noise - noise_factor * latents

    def _factors(self, timesteps: torch.Tensor, ndim: int) -> tuple[torch.Tensor, torch.Tensor]:
        alpha_bar = self.alpha_bar(timesteps).view(-1, *[1] * (ndim - 1))
        return alpha_bar.sqrt(), (1 - alpha_bar).sqrt()


def at_least_float32(x: torch.Tensor) -> torch.Tensor:
    """Half precision → float32, since sums of many small squares lose digits in half precision."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
