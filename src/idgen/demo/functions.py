"""`Functions`: people, and pictures of one; each function is the same for the page and for the API."""

from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict, astuple, replace
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pandas as pd
from PIL import Image

from ..errors import DemoError
from ..faces import Face, FaceAnalyzer
from ..identity import Identity
from ..provenance.command import MarkOptions
from . import people
from .likeness import Likeness, Score, caption
from .people import Person
from .sessions import Session, Sessions
from .settings import Settings, read_picture
from .studio import Step, Studio
from .uploads import gallery_paths, open_photo

Captioned: TypeAlias = "list[tuple[str, str]]"
"""What a gallery shows: paths and captions."""

Shown: TypeAlias = "tuple[Captioned, pd.DataFrame]"
"""Pictures with captions, and a table of their likeness."""

COLUMNS = ["picture", "person", "encoder", "cosine"]


class Functions:
    """What a page can ask for.

    Args:
        studio: Draws.
        analyzer: Finds the faces in photos.
        likeness: Judges results.
        marks: Marks them.
        sessions: Of all pages; they say where files go.
        base: Name of the base model.
    """

    def __init__(
        self,
        studio: Studio,
        analyzer: FaceAnalyzer,
        likeness: Likeness,
        marks: MarkOptions,
        sessions: Sessions,
        base: str,
    ) -> None:
        self.studio, self.analyzer, self.likeness, self.marks = studio, analyzer, likeness, marks
        self.sessions, self.base = sessions, base
        self._faces_lock = threading.Lock()  # dlib's networks are not made for several threads

    # -- people

    def find_faces(
        self, photos: Any, consent: bool, session: Session
    ) -> tuple[Captioned, list[int], list[tuple[int, int]]]:
        """All faces; for each photo the index of the one face in it, or -1; and the photo and index of each face."""
        if not photos:
            return [], [], []
        found = self._find(photos, consent)[1]
        places = [(photo, face) for photo, faces in enumerate(found) for face in range(len(faces))]
        chosen = [0 if len(faces) == 1 else -1 for faces in found]
        files = [self._keep_png(found[photo][face].crop, session) for photo, face in places]
        return marked_faces(files, places, chosen), chosen, places

    def enroll(self, photos: Any, faces: Any, name: str, consent: bool, session: Session) -> tuple[str, str]:
        """Know a person from photos; returns their name and their identity as a file."""
        images, found = self._find(photos, consent)
        chosen = people.chosen_faces(found, faces)
        name = people.checked_name(name, list(session.people))
        with self._faces_lock:
            person = people.enroll_person(self.studio.pipe, images, chosen, name, self.likeness.encoders)
        session.add(person)
        return name, self._keep_identity(person, session)

    def load_identity(self, file: str | None, name: str, session: Session) -> str:
        """Know a person from an identity file; returns their name."""
        if not file:
            raise DemoError("Choose an identity file first.")
        identity = Identity.load(file)
        name = people.checked_name(name or identity.name or "", list(session.people))
        session.add(people.loaded_person(identity, name))
        return name

    def forget(self, person: str, session: Session) -> list[str]:
        """Forget a person; returns who is left."""
        del session.people[session.person(person).name]
        return list(session.people)

    # -- pictures

    def draw(self, person: str, settings: Settings, session: Session, step: Step) -> Shown:
        """Draw one person."""
        return self.show("text", settings, [session.person(person)], session, step)

    def read_settings(self, picture: str | None, session: Session) -> tuple[Any, ...]:
        """What a picture was drawn with, in the order of the settings."""
        if not picture:
            raise DemoError("Drop a picture first.")
        settings = read_picture(Path(picture))
        known = settings.adapter in self.studio.adapters
        return astuple(settings if known else replace(settings, adapter=next(iter(self.studio.adapters))))

    def stop(self, session: Session) -> str:
        """Stop what is being drawn for this page."""
        return "Stopped." if session.stop() else "Nothing is being drawn."

    # -- what the other pages of the demo draw with

    def show(
        self,
        task: str,
        settings: Settings,
        who: Sequence[Person],
        session: Session,
        step: Step,
        *,
        judged: Sequence[Sequence[Person]] | None = None,
        finish: Callable[[Image.Image], Image.Image] = lambda picture: picture,
        **arguments: Any,
    ) -> Shown:
        """Draw, judge, and write the pictures with their settings inside where this page can fetch them.

        Args:
            task: As the other arguments, see `Studio.draw`.
            settings: Of the request.
            who: Is drawn.
            session: Of the page.
            step: Told of each step.
            judged: To whom the results are compared: groups of as many people as a picture shows; `who`, if not given.
            finish: Done to each picture once it is drawn.
            arguments: Of the pipeline.
        """
        with session.running() as stop:
            pictures = self.studio.draw(task, settings, who, stop, step, **arguments)
        shown, rows = [], []
        for i, picture in enumerate(pictures):
            own = replace(settings, seed=settings.seed + i, count=1)
            file, scores = self.judge(i + 1, finish(picture), own, judged or [who], session)
            shown.append((file, caption(scores, f"seed {own.seed}")))
            rows += scores
        return shown, pd.DataFrame([vars(row) for row in rows], columns=COLUMNS).round(3)

    def judge(
        self,
        number: int,
        picture: Image.Image,
        settings: Settings,
        judged: Sequence[Sequence[Person]],
        session: Session,
    ) -> tuple[str, list[Score]]:
        """The file of a picture, and how like everybody it is."""
        pixels = np.asarray(picture.convert("RGB"))
        with self._faces_lock:
            scores = [score for group in judged for score in self.likeness(number, pixels, group)]
        content = self.marks.file_of(picture, {**asdict(settings), "base": self.base})
        return self.keep_file(content, f"idgen-{settings.seed}.png", session), scores

    def keep_file(self, content: bytes, name: str, session: Session) -> str:
        """Write a file that this page can fetch and nobody can guess."""
        path = self.sessions.new_file(name, session)
        path.write_bytes(content)
        return os.fspath(path)

    # -- inside

    def _find(self, photos: Any, consent: bool) -> tuple[list[np.ndarray], list[list[Face]]]:
        paths = gallery_paths(photos)
        if not consent:
            raise DemoError("Draw only people who have agreed to it: tick the box above the photos.")
        images = [open_photo(path) for path in paths]
        with self._faces_lock:
            return images, people.find_faces(self.analyzer, images)

    def _keep_png(self, pixels: np.ndarray, session: Session) -> str:
        buffer = io.BytesIO()
        Image.fromarray(pixels).save(buffer, format="PNG")
        return self.keep_file(buffer.getvalue(), "face.png", session)

    def _keep_identity(self, person: Person, session: Session) -> str:
        safe = "".join(c if c.isalnum() or c in "-_" else "-" for c in person.name)
        path = self.sessions.new_file(f"{safe}.safetensors", session)
        person.identities[0].save(path)
        return os.fspath(path)


def marked_faces(files: Sequence[str], places: Sequence[Sequence[int]], chosen: Sequence[int]) -> Captioned:
    """Faces with captions, and a mark on the chosen ones."""
    several = len(chosen) > 1
    captions = [
        ("✓ " if chosen[photo] == face else "") + (f"photo {photo + 1}" if several else f"face {face + 1}")
        for photo, face in places
    ]
    return list(zip(files, captions, strict=True))
