"""`Sessions`: what the demo knows of each open page, and that it forgets all of it when the page is closed."""

from __future__ import annotations

import os
import shutil
import threading
import time
import uuid
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import DemoError
from .people import Person

MAX_PEOPLE = 24
MAX_SESSIONS = 2000

MAX_STORED = 4 * 2**30
"""Bytes of the files of all visitors."""

MAX_IDLE_SECONDS = 3600
"""After so long without a request a page is taken for closed: a client that vanished may never say so."""


class StoppedError(DemoError):
    """The visitor stopped the picture, or closed the page."""


class Session:
    """One open page.

    Attributes:
        people: By name; embeddings alone, no photo.
        folders: Of the files of this page, uploaded or drawn.
    """

    def __init__(self) -> None:
        self.people: dict[str, Person] = {}
        self.folders: set[Path] = set()
        self.last_used = time.monotonic()
        self.closed = False
        self._running: list[threading.Event] = []

    def add(self, person: Person) -> None:
        """Know a person; one of the same name is replaced. Raises DemoError if there are too many."""
        if person.name not in self.people and len(self.people) >= MAX_PEOPLE:
            raise DemoError(f"A page knows at most {MAX_PEOPLE} people; forget one first.")
        self.people[person.name] = person

    def person(self, name: str | None) -> Person:
        """Raises DemoError if nobody is called so."""
        if not self.people:
            raise DemoError("Nobody to draw yet: upload a photo and press “Use this person”, or load an identity.")
        if not name or name not in self.people:
            raise DemoError(f"Nobody here is called '{name or ''}'. There are: {', '.join(self.people)}.")
        return self.people[name]

    @contextmanager
    def running(self) -> Iterator[threading.Event]:
        """While a picture is drawn: an event that says whether it shall stop."""
        stop = threading.Event()
        self._running.append(stop)
        try:
            if self.closed:
                stop.set()
            yield stop
        finally:
            self._running.remove(stop)

    def stop(self) -> int:
        """Stop what is drawn for this page; returns how many requests that were."""
        running = list(self._running)
        for event in running:
            event.set()
        return len(running)

    @property
    def empty(self) -> bool:
        """Whether nothing is lost when it is forgotten."""
        return not (self.people or self.folders or self._running)


class Sessions:
    """All open pages by Gradio's session hash, and the files of their visitors.

    Every file lies in a folder of its own with a name that cannot be guessed. A page owns the folders of what it
    sent and of what was drawn for it; a folder is deleted when the last page that owns it is closed.

    Args:
        folder: Where the files of visitors lie, and nothing else.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._sessions: dict[str, Session] = {}
        self._lock = threading.RLock()

    def __contains__(self, key: str) -> bool:
        return key in self._sessions

    def open(self, key: str | None) -> Session:
        """The page's session; a new one at its first request."""
        if not key:
            raise DemoError("The request names no session; gradio_client does it for you.")
        with self._lock:
            if key not in self._sessions and len(self._sessions) >= MAX_SESSIONS:
                self._sessions = {k: s for k, s in self._sessions.items() if not s.empty}
                if len(self._sessions) >= MAX_SESSIONS:
                    raise DemoError("Too many pages of this demo are open; try again later.")
            session = self._sessions.setdefault(key, Session())
            session.last_used = time.monotonic()
            return session

    def new_folder(self) -> Path:
        """A new folder for one file; raises DemoError if the visitors' files are too many already."""
        if _bytes_in(self.folder) > MAX_STORED:
            raise DemoError("The demo has no room for more files; try again later.")
        folder = self.folder / uuid.uuid4().hex
        folder.mkdir(parents=True)
        return folder

    def new_file(self, name: str, session: Session) -> Path:
        """Where to write a file that this page can fetch; raises StoppedError if the page was closed."""
        folder = self.new_folder()
        with self._lock:
            if session.closed:
                raise StoppedError("The page was closed.")
            session.folders.add(folder)
        return folder / name

    def keep(self, session: Session, files: Iterable[str | Path]) -> None:
        """Note that a page needs these files. The page's own pictures belong to nobody, and stay."""
        with self._lock:
            if session.closed:
                raise StoppedError("The page was closed.")
            for file in files:
                path = Path(os.path.abspath(file))
                if path.is_relative_to(self.folder) and path != self.folder:
                    session.folders.add(self.folder / path.relative_to(self.folder).parts[0])

    def close(self, key: str | None) -> None:
        """Stop what runs for a page and delete all that is kept of it."""
        with self._lock:
            session = self._sessions.pop(key or "", None)
            if session is None:
                return
            session.closed = True
            session.stop()
            session.people.clear()
            for folder in session.folders - self._owned():
                shutil.rmtree(folder, ignore_errors=True)

    def tidy(self, waiting: Collection[str] = ()) -> None:
        """Close pages that asked for nothing for an hour, and delete older files that no page owns.

        Args:
            waiting: Sessions that have a request in the queue.
        """
        with self._lock:
            now = time.monotonic()
            idle = [key for key, s in self._sessions.items() if now - s.last_used > MAX_IDLE_SECONDS]
            for key in set(idle) - set(waiting):
                self.close(key)
            owned = self._owned()
            for folder in self.folder.iterdir():
                with suppress(OSError):  # an upload that is under way may take it away
                    if folder not in owned and time.time() - folder.stat().st_mtime > MAX_IDLE_SECONDS:
                        shutil.rmtree(folder, ignore_errors=True)

    def _owned(self) -> set[Path]:
        return {folder for session in self._sessions.values() for folder in session.folders}


def _bytes_in(folder: Path) -> int:
    found = 0
    for place, _, names in os.walk(folder):
        for name in names:
            with suppress(OSError):  # it may have been deleted since
                found += os.lstat(os.path.join(place, name)).st_size
    return found
