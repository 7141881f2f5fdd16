"""Draw people × prompts × seeds into labelled folders, split over processes; what was drawn is never drawn again."""

from __future__ import annotations

import atexit
import hashlib
import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from itertools import groupby, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from PIL import Image

from ..errors import EvaluationError
from ..files import read_json, write_bytes
from ..identity import Identity
from .cases import Case
from .prompts import Prompt

NOBODY = "without identity"
"""Folder of the pictures that the same prompts and seeds give when no identity is named."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What is the same in all pictures of a run.

    Raises:
        EvaluationError: No picture would be drawn.
    """

    base: str
    adapter: str
    id_scale: float = 0.8
    steps: int = 25
    guidance_scale: float = 5.0
    negative_prompt: str = ""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise EvaluationError(f"A picture needs at least one step, not {self.steps}.")


MARKED = ("prompt", "seed", *(field.name for field in fields(Settings)))
"""What a picture's own file may say: nothing of the person."""


@dataclass(frozen=True, kw_only=True)
class Drawing:
    """One picture to draw; `path` is without suffix and relative to the run's folder."""

    path: str
    person: str
    prompt: str
    label: str
    seed: int


def plan(cases: Sequence[Case], prompts: Sequence[Prompt], seeds: Sequence[int]) -> list[Drawing]:
    """Everybody under every prompt with every seed; without prompts, each case under the one that it brings.

    Raises:
        EvaluationError: A case has no prompt.
    """
    drawings = []
    for case in cases:
        own = [Prompt(case.prompt)] if case.prompt else []
        if not (prompts or own):
            raise EvaluationError(f"Under which prompt? '{case.name}' brings none: give --prompts.")
        for number, prompt in enumerate(prompts or own):
            for seed in seeds:
                text = prompt.text.replace("{}", case.noun)
                path = f"{case.name}/{number:03d}-{seed}"
                drawings.append(Drawing(path=path, person=case.name, prompt=text, label=prompt.label, seed=seed))
    return drawings


def without_identity(drawings: Sequence[Drawing]) -> list[Drawing]:
    """The same prompts and seeds without a person, each once."""
    unique = {(d.prompt, d.seed): d for d in drawings}
    names = {text: f"{number:03d}" for number, text in enumerate(dict.fromkeys(text for text, _ in unique))}
    return [
        Drawing(path=f"{NOBODY}/{names[d.prompt]}-{d.seed}", person="", prompt=d.prompt, label=d.label, seed=d.seed)
        for d in unique.values()
    ]


def draw(
    pipeline: Any,
    drawings: Iterable[Drawing],
    people: Mapping[str, Sequence[Identity]],
    settings: Settings,
    folder: Path,
    progress: Callable[[Drawing], None] = lambda drawing: None,
    file_of: Callable[[Image.Image, Mapping[str, Any]], bytes] = lambda picture, _: png(picture),
    batch_size: int = 1,
) -> None:
    """Draw what is not there yet.

    Each picture is a `.png` with its settings beside it in a `.json`, written last: a picture counts once both are
    there. An interrupted run is started again in the same way and ends with the same files: what is drawn together is
    drawn together again, unless it is all there.

    Args:
        pipeline: With an adapter loaded.
        drawings: See `plan`; each process of `accelerate launch` draws its share.
        people: Name → identities, several where one picture shows several people: they get strips from left to right.
        settings: Of all pictures.
        folder: Where they go.
        progress: Called for each that is drawn.
        file_of: Makes the file of a picture and its settings, without the person; by default a plain PNG, since a mark
            in the pixels would be measured too.
        batch_size: How many pictures of one person each, or of nobody, are drawn at once.

    Raises:
        EvaluationError: The folder holds pictures of other settings, or `batch_size` is not positive.
    """
    if hasattr(pipeline, "set_progress_bar_config"):
        pipeline.set_progress_bar_config(disable=True)
    if batch_size < 1:
        raise EvaluationError(f"At least one picture is drawn at once, not {batch_size}.")
    state = processes()
    with state.split_between_processes(list(drawings)) as split:
        share: Any = split
        for together in _together(share, people, batch_size):
            told = [describe(drawing, people.get(drawing.person, ()), settings) for drawing in together]
            drawn = [is_drawn(folder, *pair) for pair in zip(together, told, strict=True)]  # asks all: it may refuse
            if not all(drawn):
                start = time.perf_counter()
                pictures = _draw_together(pipeline, together, people, settings)
                seconds = round((time.perf_counter() - start) / len(together), 3)
                for drawing, picture, words in zip(together, pictures, told, strict=True):
                    words["seconds"] = seconds
                    content = file_of(picture, {key: words[key] for key in MARKED})
                    write_bytes(folder / f"{drawing.path}.png", content, EvaluationError)
                    text = json.dumps(words, indent=1, ensure_ascii=False)
                    write_bytes(folder / f"{drawing.path}.json", text.encode(), EvaluationError)
                    progress(drawing)
    state.wait_for_everyone()


def processes() -> PartialState:
    """Those that `accelerate launch` began, or this one alone; ended while its communication's threads run, one may be
    aborted."""
    state = PartialState()
    atexit.register(state.destroy_process_group)
    return state


def describe(drawing: Drawing, people: Sequence[Identity], settings: Settings) -> dict[str, Any]:
    """All that a picture follows from. Of a person only a digest, which tells whether it is still the same: of rounded
    directions, since the last digits of an embedding depend on the number of threads that made it."""
    digest = hashlib.sha256()
    for person in people:
        rounded = (person.by_photo(normalised=True) * 100).round().to(torch.int16)
        digest.update(person.encoder.encode() + rounded.numpy().tobytes())
    return {**asdict(drawing), **asdict(settings), "people": len(people), "identity": digest.hexdigest()[:16]}


def is_drawn(folder: Path, drawing: Drawing, told: Mapping[str, Any]) -> bool:
    """Whether the picture is there; raises EvaluationError if another one is in its place."""
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
    """What stands beside a picture: `describe`, and the seconds that it took."""
    file = folder / f"{drawing.path}.json"
    try:
        told = read_json(file, EvaluationError)
        if "scale" in told:  # its name up to version 0.1.0
            told["id_scale"] = told.pop("scale")
        return told
    except EvaluationError as error:
        raise EvaluationError(f"{error} Delete it, and the picture is drawn again.") from error


def _together(
    drawings: Iterable[Drawing], people: Mapping[str, Sequence[Identity]], size: int
) -> Iterator[tuple[Drawing, ...]]:
    """What one call of the pipeline draws: pictures of one person each, or of nobody; several people are alone."""
    for count, alike in groupby(drawings, key=lambda drawing: len(people.get(drawing.person, ()))):
        while together := tuple(islice(alike, size if count <= 1 else 1)):
            yield together


def _draw_together(
    pipeline: Any, drawings: Sequence[Drawing], people: Mapping[str, Sequence[Identity]], settings: Settings
) -> list[Image.Image]:
    shown = [person for drawing in drawings for person in people.get(drawing.person, ())]
    options: dict[str, Any] = {}
    if shown:
        options = {"id_embeds": shown[0] if len(shown) == 1 else shown, "id_scale": settings.id_scale}
    if len(shown) > len(drawings):
        options["id_masks"] = _strips(len(shown))
    return pipeline(
        [drawing.prompt for drawing in drawings],
        negative_prompt=[settings.negative_prompt] * len(drawings),
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        generator=[torch.Generator().manual_seed(drawing.seed) for drawing in drawings],
        **options,
    ).images


def _strips(people: int, side: int = 64) -> list[np.ndarray]:
    """A mask for each person, from left to right; adapters fit masks to their layers."""
    owner = np.arange(side) * people // side
    return [np.broadcast_to(owner == i, (side, side)).copy() for i in range(people)]


def png(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
