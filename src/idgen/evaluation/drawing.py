"""What is drawn: people × prompts × seeds with their settings, and whether a picture is finished."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, Literal

import torch

from ..errors import EvaluationError
from ..files import read_json
from ..identity import Identity
from ..pipelines.prompts import CLASS_WORD, PLACEHOLDER
from .cases import Case
from .prompts import Prompt

WITHOUT = "without identity"
"""Folder of the pictures that are drawn without an identity."""


@dataclass(frozen=True, kw_only=True)
class DrawingSettings:
    """Settings that all pictures of a run share.

    Attributes:
        width: Width of the pictures in pixels; None for the base model's. So is `height`.
        lora: LoRA beside the adapter.
        masks: "none" to draw several people without masks; None for strips from left to right.

    Raises:
        EvaluationError: `steps` is below 1.
    """

    base: str
    adapter: str
    id_scale: float = 0.8
    steps: int = 25
    guidance_scale: float = 5.0
    negative_prompt: str = ""
    width: int | None = None
    height: int | None = None
    masks: Literal["none"] | None = None
    lora: str | None = None

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise EvaluationError(f"steps must be >= 1, got {self.steps}.")


MARKED = ("prompt", "seed", *(field.name for field in fields(DrawingSettings)))
"""Settings that are written into the picture itself; none of them describes the person."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One picture to draw. `path` has no suffix and is relative to the output folder."""

    path: str
    person: str
    prompt: str
    label: str
    seed: int


def plan(cases: Sequence[Case], prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Drawing]:
    """Every person with every prompt and seed. Without prompts, each case is drawn with its own.

    Raises:
        EvaluationError: A case has no prompt.
    """
    drawings = []
    for case in cases:
        own = [Prompt(case.prompt)] if case.prompt else []
        if not (prompts or own):
            raise EvaluationError(f"'{case.name}' has no prompt of its own: --prompts is required.")
        for number, prompt in enumerate(prompts or own):
            for seed in seeds:
                text = prompt.text.replace("{}", case.noun)
                path = f"{case.name}/{number:03d}-{seed}"
                drawings.append(Drawing(path=path, person=case.name, prompt=text, label=prompt.label, seed=seed))
    return drawings


def without_identity(drawings: Sequence[Drawing]) -> dict[tuple[str, int], Drawing]:
    """Prompt and seed → the same drawn without an identity, where `<id>` is "a person"."""
    unique = {(d.prompt, d.seed): d for d in drawings}
    names = {text: f"{number:03d}" for number, text in enumerate(dict.fromkeys(text for text, _ in unique))}
    nobody = f"a {CLASS_WORD}"
    return {
        (text, seed): replace(
            drawing, path=f"{WITHOUT}/{names[text]}-{seed}", person="", prompt=text.replace(PLACEHOLDER, nobody)
        )
        for (text, seed), drawing in unique.items()
    }


def describe(drawing: Drawing, people: Sequence[Identity], settings: DrawingSettings, weights: str) -> dict[str, Any]:
    """Everything that determines a picture; `weights` is the `pipeline_key`.

    Of the people only a digest is kept, to recognise changes: of rounded directions, since the last digits of an
    embedding depend on the number of threads that computed it.
    """
    digest = hashlib.sha256()
    for person in people:
        rounded = (person.by_photo(normalised=True) * 100).round().to(torch.int16)
        digest.update(person.encoder.encode() + rounded.numpy().tobytes())
    told = {name: value for name, value in asdict(settings).items() if value is not None}
    return {**asdict(drawing), **told, "people": len(people), "identity": digest.hexdigest()[:16], "weights": weights}


def is_drawn(folder: Path, drawing: Drawing, told: Mapping[str, object]) -> bool:
    """Whether a picture is finished; raises EvaluationError if its file was drawn with other settings."""
    file = folder / f"{drawing.path}.json"
    if not file.is_file() or not file.with_suffix(".png").is_file():
        return False
    found = read_settings(folder, drawing)
    found.pop("seconds", None)
    if found != dict(told):
        differ = sorted(key for key in {*found, *told} if found.get(key) != told.get(key))
        raise EvaluationError(f"'{file}' was drawn with other settings ({', '.join(differ)}): choose another folder.")
    return True


def read_settings(folder: Path, drawing: Drawing) -> dict[str, Any]:
    """The settings beside a picture: those of `describe`, and the seconds that drawing took."""
    file = folder / f"{drawing.path}.json"
    try:
        told = read_json(file, EvaluationError)
        if "scale" in told:  # its name up to version 0.1.0
            told["id_scale"] = told.pop("scale")
        return told
    except EvaluationError as error:
        raise EvaluationError(f"{error} Delete the file to draw the picture again.") from error
