"""`Backend`: everything that the endpoints use, shared by all visitors."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from PIL import Image

from ..errors import DemoError
from ..faces import FaceAnalyzer
from ..provenance.options import MarkOptions
from .enrolled import EnrolledPerson
from .generation import GenerationSettings
from .live import OnStep
from .pipeline import SharedPipeline
from .scores import Score, Scorer
from .sessions import Session, Sessions

Captioned: TypeAlias = "list[tuple[str, str]]"
"""Paths of images with captions, as a gallery takes them."""

Results: TypeAlias = "tuple[Captioned, pd.DataFrame]"
"""Generated images with captions, and a table of their similarities."""

COLUMNS = ["image", "person", "encoder", "cosine"]


class Backend:
    """Models and settings of the demo, and where results are scored, marked and saved.

    Args:
        pipeline: Generates images.
        analyzer: Finds the faces in photos.
        scorer: Compares results with the people they should show.
        marks: How results are marked, and who is refused.
        sessions: All open pages.
        base: Name of the base model, written into results.
        runs: Folders of training runs to show.
        reports: Folders of evaluation reports to show.
    """

    def __init__(
        self,
        pipeline: SharedPipeline,
        analyzer: FaceAnalyzer,
        scorer: Scorer,
        marks: MarkOptions,
        sessions: Sessions,
        *,
        base: str = "",
        runs: Sequence[Path] = (),
        reports: Sequence[Path] = (),
    ) -> None:
        self.pipeline, self.analyzer, self.scorer, self.marks = pipeline, analyzer, scorer, marks
        self.sessions, self.base = sessions, base
        self.runs, self.reports = folders_by_name(runs), folders_by_name(reports)
        self.faces_lock = threading.Lock()
        """Held while faces are found or embedded: dlib's networks are not thread-safe."""

    def save_result(
        self,
        number: int,
        image: Image.Image,
        settings: GenerationSettings,
        compared_with: Sequence[Sequence[EnrolledPerson]],
        session: Session,
        scored: Image.Image | None = None,
    ) -> tuple[str, list[Score]]:
        """Score an image, or the part `scored` of it, mark it and save it; returns its path and its scores."""
        pixels = np.asarray((scored or image).convert("RGB"))
        with self.faces_lock:
            scores = [score for group in compared_with for score in self.scorer(number, pixels, group)]
        content = self.marks.file_of(image, {**asdict(settings), "base": self.base})
        return self.save_file(content, f"idgen-{settings.seed}.png", session), scores

    def save_png(self, image: Image.Image, name: str, session: Session) -> str:
        """Save an image as a PNG file that this page can fetch; returns its path."""
        buffer = io.BytesIO()
        image.save(buffer, format="PNG")
        return self.save_file(buffer.getvalue(), name, session)

    def save_file(self, content: bytes, name: str, session: Session) -> str:
        """Save a file that this page can fetch, at a path that cannot be guessed."""
        path = self.sessions.new_file(name, session)
        path.write_bytes(content)
        return os.fspath(path)


@dataclass(frozen=True)
class GenerationRequest:
    """A request that generates images.

    Attributes:
        backend: The backend.
        session: The page that sent the request.
        settings: Its settings.
        stop: Set when the visitor stops the request.
        on_step: Called after each denoising step.
    """

    backend: Backend
    session: Session
    settings: GenerationSettings
    stop: threading.Event
    on_step: OnStep

    def part(self, before: int, total: int) -> OnStep:
        """`on_step` for one of several calls of the pipeline.

        Args:
            before: Steps of the calls before.
            total: Steps of all calls.
        """

        def on_step(done: int, _: int, preview: Callable[[], Image.Image | None]) -> None:
            self.on_step(min(before + done, total), total, preview)

        return on_step

    def generate(
        self,
        task: str,
        people: Sequence[EnrolledPerson],
        *,
        compared_with: Sequence[Sequence[EnrolledPerson]] | None = None,
        finish: Callable[[Image.Image], Image.Image] = lambda image: image,
        **arguments: Any,
    ) -> Results:
        """Generate images, score them, and save them for the page with their settings inside.

        Args:
            task: Task of the pipeline, see `SharedPipeline.generate`.
            people: The people to show.
            compared_with: Groups of people to compare the results with; each group has as many people as an image
                shows. Defaults to `people`.
            finish: Applied to each generated image.
            arguments: Further arguments of the pipeline.
        """
        images = self.backend.pipeline.generate(task, self.settings, people, self.stop, self.on_step, **arguments)
        captioned, rows = [], []
        for i, image in enumerate(images):
            own = replace(self.settings, seed=self.settings.seed + i, count=1)
            path, scores = self.backend.save_result(i + 1, finish(image), own, compared_with or [people], self.session)
            captioned.append((path, f"seed {own.seed}"))
            rows += scores
        return _results(captioned, rows)

    def edit(
        self,
        task: str,
        person: EnrolledPerson,
        *,
        scored: Callable[[Image.Image], Image.Image],
        **arguments: Any,
    ) -> Results:
        """Edit a picture once for each seed, score the results and save them, as `generate` does.

        Args:
            task: One of `EDITS`.
            person: The person to show.
            scored: The part of an edited picture that is compared with the person.
            arguments: Further arguments of the task, the `picture` among them.
        """
        captioned, rows = [], []
        count = self.settings.count
        for i in range(count):
            own = replace(self.settings, seed=self.settings.seed + i, count=1)
            on_step = self.part(i * own.steps, count * own.steps)
            [image] = self.backend.pipeline.generate(task, own, [person], self.stop, on_step, **arguments)
            path, scores = self.backend.save_result(i + 1, image, own, [[person]], self.session, scored=scored(image))
            captioned.append((path, f"seed {own.seed}"))
            rows += scores
        return _results(captioned, rows)


def _results(captioned: Captioned, scores: Sequence[Score]) -> Results:
    return captioned, pd.DataFrame([vars(score) for score in scores], columns=COLUMNS).round(3)


def folders_by_name(folders: Sequence[Path]) -> dict[str, Path]:
    """Folders by their last names, or by their paths if two have the same last name."""
    names = [folder.resolve().name for folder in folders]
    unique = len(set(names)) == len(names)
    return dict(zip(names if unique else map(str, folders), folders, strict=True))


def named_folder(folders: dict[str, Path], name: str, kind: str) -> Path:
    """A folder that was named at the start; raises DemoError for any other."""
    if name not in folders:
        raise DemoError(f"Unknown {kind} '{name}'. Named at the start: {', '.join(folders) or 'none'}.")
    return folders[name]
