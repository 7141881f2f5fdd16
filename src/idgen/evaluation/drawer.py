"""Draw pictures into labelled folders, by any engine. Finished pictures are not drawn again."""

from __future__ import annotations

import io
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby, islice
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from rich.progress import Progress

from ..data.engines import Engine, InProcess
from ..errors import EvaluationError
from ..files import write_bytes
from ..identity import Identity
from ..terminal import console
from .drawing import MARKED, Drawing, DrawingSettings, describe, is_drawn
from .launched import processes
from .opener import PipelineOpener

FileOf: TypeAlias = Callable[[Image.Image, Mapping[str, object]], bytes]
"""Picture and settings → content of a PNG file."""


def draw(
    opener: PipelineOpener,
    drawings: Sequence[Drawing],
    people: Mapping[str, Sequence[Identity]],
    settings: DrawingSettings,
    folder: Path,
    file_of: FileOf | None = None,
    batch_size: int = 1,
    engine: Engine | None = None,
) -> None:
    """Draw the pictures that do not exist yet, with a progress bar.

    Each picture is a `.png` with its settings beside it in a `.json`, which is written last: a picture is finished
    once both exist. An interrupted run that is started again ends with the same files: pictures of one batch are drawn
    together again, unless all of them are finished. A picture depends on its batch alone, so every engine and every
    number of processes draws the same ones.

    Args:
        opener: Opens the pipeline.
        drawings: See `plan`; each process of `accelerate launch` draws its share.
        people: Name → identities. Several people in one picture get strips from left to right, unless the settings
            say otherwise.
        settings: Settings of all pictures.
        folder: Output folder.
        file_of: Picture and settings without the person → content of the file. The default is a plain PNG, since a
            watermark would be measured too.
        batch_size: Pictures drawn at once; pictures of several people are drawn one by one.
        engine: Draws the batches of each process; by default the process itself.

    Raises:
        EvaluationError: The folder holds pictures of other settings or weights, or `batch_size` is not positive.
    """
    if batch_size < 1:
        raise EvaluationError(f"batch_size must be >= 1, got {batch_size}.")
    state = processes()
    share = list(_batches(drawings, people, batch_size))[state.process_index :: state.num_processes]
    sizes = {batch.name: len(batch.drawings) for batch in share}
    drawer = Drawer(opener, people, settings, folder.resolve(), file_of, opener.key)
    with Progress(console=console) as bar:
        task = bar.add_task("Drawing", total=sum(sizes.values()))
        for name in (engine or InProcess()).run(share, drawer):
            bar.advance(task, sizes[name])
    state.wait_for_everyone()


@dataclass(frozen=True)
class Batch:
    """Pictures of one call of the pipeline: a task of an engine."""

    drawings: tuple[Drawing, ...]

    @property
    def name(self) -> str:
        """The path of the first picture."""
        return self.drawings[0].path


@dataclass(frozen=True)
class Drawer:
    """Draws batches and writes their files: a worker of an engine. The arguments are those of `draw`, and the opener's
    key."""

    opener: PipelineOpener
    people: Mapping[str, Sequence[Identity]]
    settings: DrawingSettings
    folder: Path
    file_of: FileOf | None
    key: str

    def __call__(self, batch: Batch) -> str:
        """Draw a batch, unless all of its pictures are finished; returns its name."""
        shown = batch.drawings
        people = [self.people.get(drawing.person, ()) for drawing in shown]
        told = [describe(*pair, self.settings, self.key) for pair in zip(shown, people, strict=True)]
        drawn = [is_drawn(self.folder, *pair) for pair in zip(shown, told, strict=True)]  # checks all of them
        if not all(drawn):
            pictures, seconds = _draw_batch(self.opener.pipeline, shown, self.people, self.settings)
            for drawing, picture, settings in zip(shown, pictures, told, strict=True):
                self._write(drawing, picture, {**settings, "seconds": seconds})
        return batch.name

    def _write(self, drawing: Drawing, picture: Image.Image, told: dict[str, Any]) -> None:
        marked = {key: told[key] for key in MARKED if key in told}
        content = png(picture) if self.file_of is None else self.file_of(picture, marked)
        write_bytes(self.folder / f"{drawing.path}.png", content, EvaluationError)
        text = json.dumps(told, indent=1, ensure_ascii=False)
        write_bytes(self.folder / f"{drawing.path}.json", text.encode(), EvaluationError)


def _batches(drawings: Iterable[Drawing], people: Mapping[str, Sequence[Identity]], size: int) -> Iterator[Batch]:
    """Pictures for one call of the pipeline: all with one person each, or all without; several people are alone."""
    for count, alike in groupby(drawings, key=lambda drawing: len(people.get(drawing.person, ()))):
        while batch := tuple(islice(alike, size if count <= 1 else 1)):
            yield Batch(batch)


def _draw_batch(
    pipeline: Any, batch: Sequence[Drawing], people: Mapping[str, Sequence[Identity]], settings: DrawingSettings
) -> tuple[list[Image.Image], float]:
    """The pictures, and the seconds for each."""
    shown = [person for drawing in batch for person in people.get(drawing.person, ())]
    options: dict[str, Any] = {}
    if shown:
        options = {"id_embeds": shown[0] if len(shown) == 1 else shown, "id_scale": settings.id_scale}
    if len(shown) > len(batch) and settings.masks is None:
        options["id_masks"] = strips(len(shown))
    if settings.width is not None:
        options |= {"width": settings.width, "height": settings.height}  # diffusers ignores one without the other
    if hasattr(pipeline, "set_progress_bar_config"):
        pipeline.set_progress_bar_config(disable=True)
    start = time.perf_counter()
    pictures = pipeline(
        [drawing.prompt for drawing in batch],
        negative_prompt=[settings.negative_prompt] * len(batch),
        num_inference_steps=settings.steps,
        guidance_scale=settings.guidance_scale,
        generator=[torch.Generator().manual_seed(drawing.seed) for drawing in batch],
        **options,
    ).images
    return pictures, round((time.perf_counter() - start) / len(batch), 3)


def strips(people: int, side: int = 64) -> list[np.ndarray]:
    """A mask for each person, from left to right. The adapter resizes masks to its layers."""
    owner = np.arange(side) * people // side
    return [np.broadcast_to(owner == i, (side, side)).copy() for i in range(people)]


def png(picture: Image.Image) -> bytes:
    """The picture as a PNG file."""
    buffer = io.BytesIO()
    picture.save(buffer, format="PNG")
    return buffer.getvalue()
