"""`GenerationSettings`: the validated settings of one request."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field, fields
from pathlib import Path

from ..adapter import ScaleSchedule
from ..errors import DemoError
from ..faces import load_photo
from ..provenance import read_settings

STYLES = {
    "As written": "{}",
    "Photo": "a photo of {}",
    "Pencil sketch": "a pencil sketch of {}",
    "Oil painting": "an oil painting of {}",
    "Cartoon": "a cartoon of {}",
    "Pop art": "a pop art picture of {}",
    "Sepia": "a sepia photo of {}",
    "Black and white": "a black and white photo of {}",
    "Warm light": "a photo of {} in warm light",
    "Cold light": "a photo of {} in cold light",
}
"""Prompt templates by the name of the style."""

MAX_PROMPT, MAX_STEPS, MAX_COUNT, MAX_ID_SCALE, MAX_SEED = 1000, 100, 4, 2.0, 2**32 - 1

RANDOM_SEEDS = 1_000_000
"""Random seeds are below this number: short enough to read and type."""

TYPES: dict[str, type[str | int | float]] = {"str": str, "int": int, "float": float}

OLD_NAMES = {"scale": "id_scale"}
"""Names of settings in images that version 0.1.0 wrote."""


def random_seed() -> int:
    """A random seed."""
    return secrets.randbelow(RANDOM_SEEDS)


@dataclass(frozen=True, kw_only=True)
class GenerationSettings:
    """Settings of one request; all tabs share them.

    Attributes:
        prompt: Prompt; `<id>` stands for the person if the adapter has words.
        style: A key of `STYLES`.
        negative_prompt: Negative prompt.
        adapter: Name of a loaded adapter; the first one if empty.
        id_scale: Strength of the identity conditioning.
        start: Fraction of the steps at which identity conditioning starts.
        end: Fraction of the steps at which identity conditioning ends.
        steps: Denoising steps.
        guidance_scale: Strength of classifier-free guidance.
        width: Image width in pixels.
        height: Image height in pixels.
        count: Number of images; they use consecutive seeds.
        seed: Seed of the first image; a random one if not given, None or an empty text.

    Raises:
        DemoError: A value has the wrong type or is outside its limits.
    """

    prompt: str
    style: str = "Photo"
    negative_prompt: str = ""
    adapter: str = ""
    id_scale: float = 0.8
    start: float = 0.0
    end: float = 1.0
    steps: int = 25
    guidance_scale: float = 5.0
    width: int = 512
    height: int = 512
    count: int = 1
    seed: int = field(default_factory=random_seed)

    def __post_init__(self) -> None:
        object.__setattr__(self, "seed", _seed(self.seed))
        for row in fields(self):
            object.__setattr__(self, row.name, _typed(row.name, str(row.type), getattr(self, row.name)))
        if not self.prompt.strip():
            raise DemoError("The prompt is empty. Write a prompt.")
        if max(len(self.prompt), len(self.negative_prompt)) > MAX_PROMPT:
            raise DemoError(f"A prompt can have at most {MAX_PROMPT} characters.")
        if self.style not in STYLES:
            raise DemoError(f"Unknown style '{self.style}'. Available styles: {', '.join(STYLES)}.")
        limits = {
            "id_scale": (0, MAX_ID_SCALE),
            "steps": (1, MAX_STEPS),
            "guidance_scale": (1, 20),
            "count": (1, MAX_COUNT),
            "seed": (0, MAX_SEED),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise DemoError(f"{name} must be between {low} and {high}, got {getattr(self, name)}.")
        if not 0 <= self.start < self.end <= 1:
            raise DemoError(f"start must be below end, both between 0 and 1; got {self.start} and {self.end}.")

    @property
    def text(self) -> str:
        """The prompt in its style."""
        return STYLES[self.style].replace("{}", self.prompt)

    @property
    def of_call(self) -> tuple[object, ...]:
        """Settings that all images of one pipeline call share."""
        return self.adapter, self.schedule, self.steps, self.guidance_scale, self.width, self.height

    @property
    def schedule(self) -> ScaleSchedule:
        """Strength of the identity conditioning over the steps."""
        return ScaleSchedule(scale=self.id_scale, start=self.start, end=self.end)


def _seed(value: object) -> object:
    """The page has a text field for the seed, which is empty for a random one."""
    if isinstance(value, str):
        value = value.strip()
        return random_seed() if not value else int(value) if value.isdecimal() else value
    return random_seed() if value is None else value


def _typed(name: str, kind: str, value: object) -> str | int | float:
    """Convert a value to the field's type: sliders give whole numbers as floats, and clients can send anything."""
    try:
        if kind == "str" and isinstance(value, str):
            return value
        if kind == "str" or not isinstance(value, int | float) or (kind == "int" and value != int(value)):
            raise ValueError
        return TYPES[kind](value)
    except (ValueError, OverflowError) as error:
        raise DemoError(f"{name} cannot be {value!r}.") from error


def read_image_settings(path: Path) -> GenerationSettings:
    """Settings that an image was generated with, in the demo or with `idgen generate`.

    Raises:
        DemoError: The file holds no settings, or a setting is outside the limits of the demo.
        ImageError: The file is not an image.
        ProvenanceError: The settings in the file are damaged.
    """
    found = read_settings(path)
    if not found:
        raise DemoError("This image holds no settings. Use a PNG file that was downloaded from this demo.")
    height, width = load_photo(path).shape[:2]
    names = {row.name for row in fields(GenerationSettings)}
    settings = {OLD_NAMES.get(name, name): value for name, value in found.items()}
    known = {name: value for name, value in settings.items() if name in names}
    return GenerationSettings(**{"prompt": "", "style": "As written", "width": width, "height": height, **known})
