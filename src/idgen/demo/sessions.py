"""`Sessions`: what the demo knows of each open page, and that it forgets all of it when the page is closed."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import DemoError
from .people import Person

MAX_PEOPLE = 24
MAX_IDLE_SECONDS = 3600
"""After so long without a request a page is taken for closed: a client that vanished may never say so."""


class StoppedError(DemoError):
    """The visitor stopped the picture, or closed the page."""


class Session:
    """One open page.

    Attributes:
        people: By name; embeddings alone, no photo.
        files: Of this page, uploaded or drawn.
    """

    def __init__(self) -> None:
        self.people: dict[str, Person] = {}
        self.files: set[Path] = set()
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

    def keep(self, file: str | Path) -> Path:
        """Note that a file is this page's; raises StoppedError if the page was closed."""
        if self.closed:
            raise StoppedError("The page was closed.")
        self.files.add(Path(file))
        return Path(file)

    def stop(self) -> int:
        """Stop what is drawn for this page; returns how many requests that were."""
        running = list(self._running)
        for event in running:
            event.set()
        return len(running)


class Sessions:
    """All open pages by Gradio's session hash."""

    def __init__(self) -> None:
        self._sessions: dict[str, Session] = {}
        self._lock = threading.Lock()

    def __contains__(self, key: str) -> bool:
        return key in self._sessions

    def open(self, key: str | None) -> Session:
        """The page's session; a new one at its first request."""
        if not key:
            raise DemoError("The request names no session; gradio_client does it for you.")
        with self._lock:
            now = time.monotonic()
            idle = [k for k, s in self._sessions.items() if now - s.last_used > MAX_IDLE_SECONDS and k != key]
            session = self._sessions.setdefault(key, Session())
            session.last_used = now
        for each in idle:
            self.close(each)
        return session

    def close(self, key: str | None) -> None:
        """Stop what runs for a page and delete all that is kept of it."""
        with self._lock:
            session = self._sessions.pop(key or "", None)
            if session is None:
                return
            session.closed = True
            others = {file for other in self._sessions.values() for file in other.files}
        session.stop()
        session.people.clear()
        for file in session.files - others:  # the name of an upload is its content's: two pages can share one
            file.unlink(missing_ok=True)
            if file.parent.is_dir() and not any(file.parent.iterdir()):
                file.parent.rmdir()
