"""Rows of the tables of losses and rewards, and the weights that a configuration gives them."""

from __future__ import annotations

import importlib.util
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self, TypeAlias

import tyro
from tyro.constructors import PrimitiveConstructorSpec

from ..errors import LossError
from .gates import Decay, Gate, UpTo
from .settings import DEFAULTS, LossSettings
from .weighted import Term, parameters

FACES = frozenset({"generated_embeds", "face_images", "landmarks"})
"""Inputs that are read from a generated face: what reads one of them is valid only where a face was found."""


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


@dataclass(frozen=True, kw_only=True)
class Row:
    """A loss or a reward.

    Attributes:
        help: What it does, in one line.
        function: The loss or reward itself; its parameters name the inputs that it reads.
        make: Returns the loss or reward, in place of `function`. Its parameters name the settings and networks that it
            is called with.
        weight: Default weight; 0 leaves it out.
        window: Default window of timesteps; see `Weight`.
        needs: Settings that must be given.
        formula: Formula.
        source: Papers.
        cost: Cost beyond that of the training step.
        use: When to use it.
    """

    help: str
    function: Callable[..., Any] | None = None
    make: Callable[..., Any] | None = None
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
    def reads_settings(self) -> set[str]:
        """Names of the settings and networks that it is made with."""
        return set() if self.make is None else {*inspect.signature(self.make).parameters}

    def build(self, settings: Mapping[str, Any]) -> Callable[..., Any]:
        """The loss or reward."""
        if self.make is None:
            assert self.function is not None
            return self.function
        return self.make(**{name: settings[name] for name in self.reads_settings & settings.keys()})


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
                near = get_close_matches(name, self.rows, 1)
                hint = f" Did you mean '{near[0]}'?" if near else ""
                raise LossError(
                    f"'{name}' is not known as a {self.kind}.{hint} Use one of {', '.join(self.rows)}, or a function "
                    f"of your own, FILE.py:FUNCTION."
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
        """Build everything whose weight is not 0. A function of one's own has the name of the function.

        Args:
            weights: As in the configuration.
            settings: Settings and networks by name.
            num_train_timesteps: Length of the noise schedule; None to ignore the windows.

        Raises:
            LossError: A function is not found, or has the name of a row.
        """
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


@dataclass(frozen=True, kw_only=True)
class WeightedConfig:
    """The base of the configurations of losses and rewards: weights by name, and settings.

    Raises:
        LossError: A name is not known, a weight is malformed, or a needed setting is missing.
    """

    table: ClassVar[Table]
    weights: Weights = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.table.check(self.weights, self)

    @classmethod
    def only(cls, **given: Any) -> Self:
        """What is given and nothing else: weights and settings by name. Denoising has its default weight."""
        named = cls.nest(given)
        off = {name: 0.0 for name, row in cls.table.rows.items() if row.weight and name != "denoising"}
        return cls(**{**named, "weights": off | named["weights"]})

    @classmethod
    def nest(cls, values: Mapping[str, Any]) -> dict[str, Any]:
        """Weights and settings side by side, as in a TOML table → the arguments of this class."""
        names = {each.name for each in fields(cls)} - {"weights"}
        weights = {name: value for name, value in values.items() if name not in names}
        return {"weights": weights, **{name: value for name, value in values.items() if name in names}}

    @property
    def settings(self) -> dict[str, Any]:
        """The settings by name."""
        return {each.name: getattr(self, each.name) for each in fields(self) if each.name != "weights"}

    @property
    def active(self) -> dict[str, Weight]:
        """Weights that are not 0."""
        return {name: weight for name, weight in self.table.weights(self.weights).items() if weight.value}

    @property
    def read_settings(self) -> set[str]:
        """Names of the settings that the active losses or rewards are made with."""
        rows = (self.table.rows[name] for name in self.active if name in self.table.rows)
        return {name for row in rows for name in row.reads_settings} & self.settings.keys()

    @property
    def needs_statistics(self) -> bool:
        """Whether a setting in use follows from the statistics of the face encoder."""
        return any(getattr(self, name) is None for name in self.read_settings & asdict(DEFAULTS).keys())

    def fitted(self, constants: LossSettings = DEFAULTS) -> Self:
        """The same with all weights, and with the encoder's constants for settings that are None."""
        found = {name: value for name, value in asdict(constants).items() if getattr(self, name, 0) is None}
        return replace(self, weights=self.table.weights(self.weights), **found)


WEIGHTS_FLAG = PrimitiveConstructorSpec[dict[str, Any]](
    nargs="*",
    metavar="NAME=WEIGHT",
    instance_from_str=lambda texts: dict(_split(text) for text in texts),
    is_instance=lambda given: isinstance(given, Mapping),
    str_from_instance=lambda given: [f"{name}={weight}" for name, weight in given.items()],
)
"""`NAME=WEIGHT …` on the command line → weights."""


def load_function(where: str) -> Callable[..., Any]:
    """A function in a Python file, `"FILE.py:FUNCTION"`. The file is executed.

    Raises:
        LossError: The file or the function does not exist.
    """
    file, _, name = where.rpartition(":")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    if spec is None or spec.loader is None or not Path(file).is_file():
        raise LossError(f"'{where}' names no existing Python file: a function is given as FILE.py:FUNCTION.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if not callable(found := getattr(module, name, None)):
        raise LossError(f"'{file}' has no function '{name}'.")
    return found


def _split(text: str) -> tuple[str, str]:
    name, equals, weight = text.rpartition("=")
    if not (equals and name):
        raise ValueError(f"'{text}' is not NAME=WEIGHT.")
    return name, weight


def _public_name(row: Row) -> str:
    return getattr(row.make or row.function, "__qualname__", "").partition(".")[0]
