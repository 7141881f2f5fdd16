"""Weights of losses and rewards, as a configuration and the command line give them."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple, Self, TypeAlias

from tyro.constructors import PrimitiveConstructorSpec

from ..errors import LossError
from .gates import Between, Decay, Gate, UpTo

Window: TypeAlias = float | tuple[float, float] | Literal["decay"] | None

_NUMBER = r"[0-9.]+(?:e[-+]?[0-9]+)?"
_RANGE = re.compile(f"({_NUMBER})-({_NUMBER})")


class Weight(NamedTuple):
    """The weight of a loss or reward, and the timesteps at which it counts.

    Written `WEIGHT`, `WEIGHT@SHARE`, `WEIGHT@START-END` or `WEIGHT@decay`.

    Attributes:
        value: Factor in the sum.
        window: Share of the noise schedule up to which a loss counts, 0 to 1; two shares, between which it counts;
            `"decay"` for the factor (1 − t/T)²; None for all timesteps.
    """

    value: float
    window: Window = None

    def __str__(self) -> str:
        number = str(self.value).removesuffix(".0")
        if self.window is None or not self.value:
            return number
        ends = self.window if isinstance(self.window, tuple) else (self.window,)
        return f"{number}@{'-'.join(map(str, ends))}"

    @classmethod
    def parse(cls, name: str, given: float | str | Weight, window: Window = None) -> Self:
        """A weight as it is given in a configuration.

        Args:
            name: Of the loss or reward, for the message.
            given: Number, text or weight.
            window: Default window.

        Raises:
            LossError: It has none of the four forms.
        """
        if isinstance(given, Weight):
            return cls(*given)
        number, at, window_text = str(given).partition("@")
        try:
            weight = cls(float(number), _window(window_text) if at else window)
            if not math.isfinite(weight.value):
                raise ValueError(number)
            weight.gate(1)
        except (ValueError, LossError) as error:
            raise LossError(
                f"{name}={given}: a weight is a number, NUMBER@SHARE with a share from 0 to 1, NUMBER@START-END with "
                "two shares, or NUMBER@decay."
            ) from error
        return weight

    def gate(self, num_train_timesteps: int) -> Gate | None:
        """The factor of the weight at each timestep."""
        if self.window is None:
            return None
        if self.window == "decay":
            return Decay(num_train_timesteps=num_train_timesteps)
        if isinstance(self.window, tuple):
            return Between(*self.window, num_train_timesteps)
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


def _window(text: str) -> Window:
    """The window after the `@`; raises ValueError if it has none of the forms."""
    if text == "decay":
        return "decay"
    if ends := _RANGE.fullmatch(text):
        return float(ends[1]), float(ends[2])
    return float(text)


def _split(text: str) -> tuple[str, str]:
    name, equals, weight = text.rpartition("=")
    if not (equals and name):
        raise ValueError(f"'{text}' is not NAME=WEIGHT.")
    return name, weight
