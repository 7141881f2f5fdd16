"""The denoising loss."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from ..errors import LossError
from .parametrisation import Parametrisation, at_least_float32


@dataclass(frozen=True, eq=False, kw_only=True)
class DenoisingLoss:
    """Squared error of the prediction, with min-SNR weights and more weight on the face.

    `w(t) · Σ m (prediction − target)² / Σ m` over channels and pixels, with `m = 1` on the face and
    `background_weight` elsewhere. StableIdentity (arXiv 2401.15975) and ConsistentID (arXiv 2404.16771) divide by the
    number of all pixels instead; here small and large faces have the same weight.

    With SNR = ᾱ/(1 − ᾱ), min-SNR (Hang et al., arXiv 2303.09556, section 3.4) weights the error of x0 by min(SNR, γ):
    that is min(SNR, γ)/SNR for ε, min(SNR, γ)/(SNR + 1) for v, and min(SNR, γ) where x0 itself is predicted.

    With `huber`, the mean squared error e of a sample becomes the pseudo-Huber distance `√(e + c²) − c` (improved
    consistency training, arXiv 2310.14189, section 3.3): a few outliers have less influence. The paper takes the norm
    of a whole sample of d numbers and `c = 0.00054 √d`; divided by √d, that is this formula with c = 0.00054.

    Attributes:
        parametrisation: The noise schedule and the type of prediction.
        snr_gamma: γ, 5 in the paper; None to weight all timesteps equally.
        background_weight: Weight of pixels outside the face, 0 to 1.
        huber: c of the pseudo-Huber distance; None for the squared error.

    Raises:
        LossError: γ or c is not positive, or the weight is not in [0, 1].
    """

    parametrisation: Parametrisation
    snr_gamma: float | None = None
    background_weight: float = 1.0
    huber: float | None = None

    def __post_init__(self) -> None:
        for name in ("snr_gamma", "huber"):
            if (value := getattr(self, name)) is not None and value <= 0:
                raise LossError(f"{name} must be positive, not {value}.")
        if not 0 <= self.background_weight <= 1:
            raise LossError(f"background_weight must be in [0, 1], not {self.background_weight}.")

    def __call__(
        self,
        model_output: torch.Tensor,
        latents: torch.Tensor,
        noise: torch.Tensor,
        timesteps: torch.Tensor,
        face_mask: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Compare a prediction with its target.

        Args:
            model_output: (batch, channels, height, width).
            latents: x0, of the same shape.
            noise: ε, of the same shape.
            timesteps: (batch,), integers.
            face_mask: (batch, 1, height, width) in [0, 1]; required unless `background_weight` is 1. The loss is 0 for
                a sample whose weights are all zero.

        Returns:
            (batch,).

        Raises:
            LossError: The mask is missing.
        """
        target = self.parametrisation.target(latents, noise, timesteps)
        error = (at_least_float32(model_output) - at_least_float32(target)).square().mean(1)
        if self.background_weight == 1:
            loss = error.flatten(1).mean(1)
        elif face_mask is None:
            raise LossError(f"background_weight={self.background_weight} needs a face_mask.")
        else:
            loss = masked_mean(error, face_mask[:, 0], self.background_weight)
        if self.huber is not None:
            loss = (loss + self.huber**2).sqrt() - self.huber
        return loss if self.snr_gamma is None else loss * self.snr_weight(timesteps)

    def snr_weight(self, timesteps: torch.Tensor) -> torch.Tensor:
        """(batch,) integers → min-SNR weights, (batch,)."""
        assert self.snr_gamma is not None
        alpha_bar = self.parametrisation.alpha_bar(timesteps)
        snr = alpha_bar / (1 - alpha_bar)
        clipped = snr.clamp(max=self.snr_gamma)
        if self.parametrisation.prediction_type == "epsilon":
            return clipped / snr
        return clipped / (snr + 1) if self.parametrisation.prediction_type == "v_prediction" else clipped


def masked_mean(error: torch.Tensor, mask: torch.Tensor, outside: float) -> torch.Tensor:
    """Means with weight 1 inside a mask and `outside` elsewhere; (batch, height, width) each → (batch,).

    The mean is 0 for a sample whose weights are all zero.
    """
    weights = outside + (1 - outside) * mask.to(error.dtype)
    return (weights * error).sum((1, 2)) / weights.sum((1, 2)).clamp(min=torch.finfo(error.dtype).tiny)
