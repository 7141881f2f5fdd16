"""Weights of losses and rewards, as a configuration and the command line give them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Self, TypeAlias

from tyro.constructors import PrimitiveConstructorSpec

from ..errors import LossError
from .gates import Decay, Gate, UpTo

Window: TypeAlias = float | Literal["decay"] | None


class Weight(NamedTuple):
    """The weight of a loss or reward, and the timesteps at which it counts.

    Written `WEIGHT`, `WEIGHT@SHARE` or `WEIGHT@decay`.

    Attributes:
        value: Factor in the sum.
        window: Share of the noise schedule up to which a loss counts, 0 to 1; `"decay"` for the factor (1 − t/T)²;
            None for all timesteps.
    """

    value: float
    window: Window = None

    def __str__(self) -> str:
        number = str(self.value).removesuffix(".0")
        return number if self.window is None or not self.value else f"{number}@{self.window}"

    @classmethod
    def parse(cls, name: str, given: float | str | Weight, window: Window = None) -> Self:
        """A weight as it is given in a configuration.

        Args:
            name: Of the loss or reward, for the message.
            given: Number, text or weight.
            window: Default window.

        Raises:
            LossError: It is none of the three forms.
        """
        if isinstance(given, Weight):
            return cls(*given)
        number, at, share = str(given).partition("@")
        try:
            value = float(number)
            if at:
                window = "decay" if share == "decay" else float(share)
        except ValueError:
            value = math.nan
        if not math.isfinite(value) or (isinstance(window, float) and not 0 <= window <= 1):
            raise LossError(
                f"{name}={given}: a weight is a number, NUMBER@SHARE with a share from 0 to 1, or NUMBER@decay."
            )
        return cls(value, window)

    def gate(self, num_train_timesteps: int) -> Gate | None:
        """The factor of the weight at each timestep."""
        if self.window is None:
            return None
        if self.window == "decay":
            return Decay(num_train_timesteps=num_train_timesteps)
        return UpTo(self.window, num_train_timesteps)


Weights: TypeAlias = Mapping[str, float | str | Weight]
"""Weights by the name of a row, or by `FILE.py:FUNCTION`."""

WEIGHTS_FLAG = PrimitiveConstructorSpec[dict[str, Any]](
    nargs="*",
    metavar="NAME=WEIGHT",
    instance_from_str=lambda texts: dict(_split(text) for text in texts),
    is_instance=lambda given: isinstance(given, Mapping),
    str_from_instance=lambda given: [f"{name}={weight}" for name, weight in given.items()],
)
"""`NAME=WEIGHT …` on the command line → weights."""


def _split(text: str) -> tuple[str, str]:
    name, equals, weight = text.rpartition("=")
    if not (equals and name):
        raise ValueError(f"'{text}' is not NAME=WEIGHT.")
    return name, weight
