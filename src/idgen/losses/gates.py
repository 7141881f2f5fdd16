"""Factors of a loss at each timestep: (batch,) integers → (batch,) numbers in [0, 1]."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from ..errors import LossError

if TYPE_CHECKING:  # the command line reads weights, and with them gates, without torch
    import torch

    from .parametrisation import Parametrisation

Gate: TypeAlias = "Callable[[torch.Tensor], torch.Tensor]"


@dataclass(frozen=True)
class UpTo:
    """One up to a share of the noise schedule, zero beyond (0.6 in WithAnyone, arXiv 2510.14975, `train.py`).

    Attributes:
        t_max: Share of the schedule, 0 to 1.
        num_train_timesteps: T.
    """

    t_max: float = 0.6
    num_train_timesteps: int = 1000

    def __post_init__(self) -> None:
        if not 0 <= self.t_max <= 1 or self.num_train_timesteps < 1:
            raise LossError(f"t_max must be in [0, 1] and num_train_timesteps >= 1, not {self}.")

    def __call__(self, timesteps: torch.Tensor) -> torch.Tensor:
        return (timesteps <= self.t_max * self.num_train_timesteps).float()


@dataclass(frozen=True)
class Between:
    """One in a window of the noise schedule, zero outside.

    Diffusion loses fine attributes at small timesteps and coarse ones at large timesteps, so a loss on one attribute
    has a window of its own (DiTi, arXiv 2401.11430, section 4). `idgen evaluate --by-timestep` proposes windows. A
    window contains its end and not its start, unless that is 0: windows that follow each other share no timestep.

    Attributes:
        t_min: Start, as a share of the schedule.
        t_max: End, as a share of the schedule.
        num_train_timesteps: T.
    """

    t_min: float
    t_max: float
    num_train_timesteps: int = 1000

    def __post_init__(self) -> None:
        if not 0 <= self.t_min < self.t_max <= 1 or self.num_train_timesteps < 1:
            raise LossError(f"A window needs 0 <= t_min < t_max <= 1 and num_train_timesteps >= 1, not {self}.")

    def __call__(self, timesteps: torch.Tensor) -> torch.Tensor:
        inside = timesteps <= self.t_max * self.num_train_timesteps
        if self.t_min:
            inside = inside & (timesteps > self.t_min * self.num_train_timesteps)
        return inside.float()


@dataclass(frozen=True)
class Decay:
    """`(1 − t/T)^exponent` (ID-Booth, arXiv 2504.07392, with exponent 2).

    Attributes:
        exponent: A larger exponent reduces the weight of noisy timesteps.
        num_train_timesteps: T.
    """

    exponent: float = 2.0
    num_train_timesteps: int = 1000

    def __post_init__(self) -> None:
        if self.exponent <= 0 or self.num_train_timesteps < 1:
            raise LossError(f"exponent must be > 0 and num_train_timesteps >= 1, not {self}.")

    def __call__(self, timesteps: torch.Tensor) -> torch.Tensor:
        return (1 - timesteps.float() / self.num_train_timesteps).clamp(min=0) ** self.exponent


@dataclass(frozen=True, eq=False)
class SignalPower:
    """ᾱ_t^exponent, the share of the signal in the noisy latent; depends on the noise schedule, not on t/T.

    Attributes:
        parametrisation: Holds ᾱ_t.
        exponent: 1 for the share of the power, 0.5 for that of the amplitude.
    """

    parametrisation: Parametrisation
    exponent: float = 1.0

    def __post_init__(self) -> None:
        if self.exponent <= 0:
            raise LossError(f"exponent must be > 0, not {self.exponent}.")

    def __call__(self, timesteps: torch.Tensor) -> torch.Tensor:
        return self.parametrisation.alpha_bar(timesteps) ** self.exponent
