"""Tables of losses and rewards."""

from __future__ import annotations

import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import tyro

from ..errors import LossError
from ..names import nearest
from ..own_code import load_object
from .weights import Weight, Weights, Window

if TYPE_CHECKING:
    from .term import Term

FACES = frozenset(
    {
        *("generated_embeds", "generated_features", "generated_halves", "generated_patches"),
        *("face_images", "landmarks"),
    }
)
"""Inputs that are read from a generated face: what reads one of them is valid only where a face was found."""


@dataclass(frozen=True, kw_only=True)
class Row:
    """A loss or a reward.

    Attributes:
        help: What it does, in one line.
        function: The loss or reward itself; its parameters name the inputs that it reads. Given as "MODULE:NAME", it
            is imported when it is used, so that the table does not import torch.
        make: Returns the loss or reward, in place of `function`, and is given like it. Its parameters name the
            settings and networks that it is called with.
        weight: Default weight; 0 leaves it out.
        window: Default window of timesteps; see `Weight`.
        needs: Settings that must be given.
        formula: Formula.
        source: Papers.
        cost: Cost beyond that of the training step.
        use: When to use it.
    """

    help: str
    function: Callable[..., Any] | str | None = None
    make: Callable[..., Any] | str | None = None
    weight: float = 0.0
    window: Window = None
    needs: tuple[str, ...] = ()
    formula: str = ""
    source: str = ""
    cost: str = ""
    use: str = ""

    def __post_init__(self) -> None:
        if (self.function is None) == (self.make is None):
            raise LossError("A row has either a function or make, which returns one.")

    @property
    def target(self) -> Callable[..., Any]:
        """`function` or `make`, imported."""
        given = self.make or self.function
        return pkgutil.resolve_name(given) if isinstance(given, str) else given  # pyright: ignore[reportReturnType]

    @property
    def reads_settings(self) -> set[str]:
        """Names of the settings and networks that it is made with."""
        return set() if self.make is None else {*inspect.signature(self.target).parameters}

    def build(self, settings: Mapping[str, Any]) -> Callable[..., Any]:
        """The loss or reward."""
        if self.make is None:
            return self.target
        return self.target(**{name: settings[name] for name in self.reads_settings & settings.keys()})


@dataclass(frozen=True)
class Table:
    """A table of losses or rewards.

    Attributes:
        kind: `"loss"` or `"reward"`, for messages.
        rows: The rows by name.
    """

    kind: str
    rows: dict[str, Row]

    def weights(self, given: Weights) -> dict[str, Weight]:
        """The default weights, replaced by those that are given.

        Raises:
            LossError: A name is not known, or a weight is malformed.
        """
        found = {name: Weight(row.weight, row.window) for name, row in self.rows.items()}
        for name, weight in given.items():
            if name not in found and ".py:" not in name:
                raise LossError(
                    f"'{name}' is not known as a {self.kind}.{nearest(name, self.rows)} Use one of "
                    f"{', '.join(self.rows)}, or a function of your own, FILE.py:FUNCTION."
                )
            found[name] = Weight.parse(name, weight, self.rows[name].window if name in self.rows else None)
        return found

    def check(self, weights: Weights, settings: object) -> None:
        """Check that the losses or rewards in use have the settings that they need.

        Raises:
            LossError: A name is not known, a weight is malformed, or a needed setting is missing.
        """
        for name, weight in self.weights(weights).items():
            for setting in self.rows[name].needs if weight.value and name in self.rows else ():
                if not getattr(settings, setting):
                    raise LossError(f"The {self.kind} '{name}' needs the setting {setting}.")

    def terms(
        self, weights: Weights, settings: Mapping[str, Any], num_train_timesteps: int | None = None
    ) -> dict[str, Term]:
        """Build everything whose weight is not 0. A custom function has the name of the function.

        Args:
            weights: As in the configuration.
            settings: Settings and networks by name.
            num_train_timesteps: Length of the noise schedule; None to ignore the windows.

        Raises:
            LossError: A function is not found, or has the name of a row.
        """
        from .term import Term, parameters

        found: dict[str, Term] = {}
        for name, weight in self.weights(weights).items():
            if not weight.value:
                continue
            function = self.rows[name].build(settings) if name in self.rows else load_function(name)
            name = name.rpartition(":")[-1]
            if name in found:
                raise LossError(f"Two {self.kind} functions have the name '{name}': rename one.")
            gate = None if num_train_timesteps is None else weight.gate(num_train_timesteps)
            valid = "face_found" if FACES & parameters(function).keys() else None
            found[name] = Term(function, weight.value, gate, valid)
        return found

    def summary(self) -> str:
        """Names, default weights and help, a line each."""
        rows = self.rows.items()
        return "\n".join(f"{name}={Weight(row.weight, row.window)}: {row.help}" for name, row in rows)

    def markdown(self) -> str:
        """The table of the documentation."""
        head = "| name | in Python | default | formula | source | cost | when to use |\n" + "| --- " * 7 + "|"
        lines = [
            f"| `{name}` | `{_public_name(row)}` | {Weight(row.weight, row.window)} | "
            f"{row.formula} | {row.source} | {row.cost} | {row.use} |"
            for name, row in self.rows.items()
        ]
        return "\n".join([head, *lines])

    def flag(self) -> object:
        """Annotation of a configuration's field: the flag that takes the weights."""
        return tyro.conf.arg(name="", help_behavior_hint=lambda _: f"\n{self.summary()}")


def load_function(where: str) -> Callable[..., Any]:
    """A function in a Python file, `"FILE.py:FUNCTION"`. The file is executed.

    Raises:
        LossError: The file or the function does not exist.
    """
    return load_object(where, LossError)


def _public_name(row: Row) -> str:
    return getattr(row.target, "__qualname__", "").partition(".")[0]
