"""`Settings`: what a visitor chooses for a picture, checked."""

from __future__ import annotations

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

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
"""What stands around the prompt."""

MAX_PROMPT, MAX_STEPS, MAX_COUNT, MAX_SCALE, MAX_SEED = 1000, 100, 4, 2.0, 2**32 - 1


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Of one request, the same for all pages of the demo.

    Attributes:
        prompt: What the picture shows; `<id>` is the person, for adapters with words.
        style: A name in `STYLES`.
        negative_prompt: What it shall not show.
        adapter: Name of a loaded adapter; the first one if empty.
        scale: How strongly the identity acts.
        start: Share of the run from which it acts.
        end: Share of the run until which it acts.
        steps: Denoising steps.
        guidance_scale: How closely the prompt is followed.
        width: Of the picture in pixels.
        height: Of the picture in pixels.
        count: Pictures at once, with the seeds that follow each other.
        seed: Of the first.

    Raises:
        DemoError: A value is outside its limits.
    """

    prompt: str
    style: str = "Photo"
    negative_prompt: str = ""
    adapter: str = ""
    scale: float = 0.8
    start: float = 0.0
    end: float = 1.0
    steps: int = 25
    guidance_scale: float = 5.0
    width: int = 512
    height: int = 512
    count: int = 1
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            object.__setattr__(self, field.name, _typed(field.name, str(field.type), getattr(self, field.name)))
        if not self.prompt.strip():
            raise DemoError("What shall the picture show? Write a prompt.")
        if max(len(self.prompt), len(self.negative_prompt)) > MAX_PROMPT:
            raise DemoError(f"A prompt has at most {MAX_PROMPT} characters.")
        if self.style not in STYLES:
            raise DemoError(f"There is no style '{self.style}'; there are {', '.join(STYLES)}.")
        limits = {
            "scale": (0, MAX_SCALE),
            "steps": (1, MAX_STEPS),
            "guidance_scale": (1, 20),
            "count": (1, MAX_COUNT),
            "seed": (0, MAX_SEED),
        }
        for name, (low, high) in limits.items():
            if not low <= getattr(self, name) <= high:
                raise DemoError(f"{name} lies between {low} and {high}; {getattr(self, name)} does not.")
        if not 0 <= self.start < self.end <= 1:
            raise DemoError(
                f"The identity cannot act from {self.start} to {self.end}: start before the end, in 0 to 1."
            )

    @property
    def text(self) -> str:
        """The prompt in its style."""
        return STYLES[self.style].replace("{}", self.prompt)

    @property
    def schedule(self) -> ScaleSchedule:
        """When and how strongly the identity acts."""
        return ScaleSchedule(scale=self.scale, start=self.start, end=self.end)


def _typed(name: str, kind: str, value: Any) -> Any:
    """Sliders give whole numbers as floats and clients anything."""
    types = {"str": str, "int": int, "float": float}
    try:
        if (kind == "str") != isinstance(value, str) or (kind == "int" and float(value) != int(value)):
            raise ValueError
        return types[kind](value)
    except (TypeError, ValueError, OverflowError) as error:
        raise DemoError(f"{name} cannot be {value!r}.") from error


def read_picture(path: Path) -> Settings:
    """What a picture was drawn with, in the demo or by the command line.

    Raises:
        DemoError: It does not say so, or what it says is outside the limits of the demo.
        ImageError: It is no picture.
        ProvenanceError: What it says is damaged.
    """
    told = read_settings(path)
    if not told:
        raise DemoError("This picture holds no settings: drop a PNG that was downloaded here.")
    height, width = load_photo(path).shape[:2]
    size = {"width": width, "height": height}
    names = {field.name for field in fields(Settings)}
    return Settings(**{"prompt": "", "style": "As written", **size, **{k: v for k, v in told.items() if k in names}})
