"""`Sessions`: people and files of each open page, deleted when the page is closed."""

from __future__ import annotations

import os
import shutil
import threading
import time
import uuid
from collections.abc import Callable, Collection, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..errors import DemoError
from .enrolled import EnrolledPerson

MAX_PEOPLE = 24
MAX_SESSIONS = 2000

MAX_STORED = 4 * 2**30
"""Maximum bytes of the files of all visitors."""

MAX_IDLE_SECONDS = 3600
"""A page is closed after this time without a request: a client that was disconnected may never report it."""


class StoppedError(DemoError):
    """The visitor pressed Stop or closed the page."""


def stopping(stop: threading.Event, on_step: Callable[[int, int], None]) -> Callable[[int, int], None]:
    """`on_step`, which also raises StoppedError once `stop` is set."""

    def checked(done: int, total: int) -> None:
        if stop.is_set():
            raise StoppedError("Stopped.")
        on_step(done, total)

    return checked


class Session:
    """One open page.

    Attributes:
        people: People by name, without photos.
        folders: Folders of the files of this page, uploaded or generated.
        last_seed: Seed of the latest request that generates images.
    """

    def __init__(self) -> None:
        self.people: dict[str, EnrolledPerson] = {}
        self.folders: set[Path] = set()
        self.last_seed: int | None = None
        self.last_used = time.monotonic()
        self.closed = False
        self._running: list[threading.Event] = []

    def add(self, person: EnrolledPerson) -> None:
        """Add a person, or replace the one of the same name; raises DemoError if there are too many."""
        if person.name not in self.people and len(self.people) >= MAX_PEOPLE:
            raise DemoError(f"A page can have at most {MAX_PEOPLE} people. Forget one first.")
        self.people[person.name] = person

    def person(self, name: str | None) -> EnrolledPerson:
        """The person of this name; raises DemoError if there is none."""
        if not self.people:
            raise DemoError("No person is enrolled. Upload a photo and press “Enroll”, or load an identity file.")
        if not name or name not in self.people:
            raise DemoError(f"Unknown person '{name or ''}'. Enrolled people: {', '.join(self.people)}.")
        return self.people[name]

    @contextmanager
    def running(self) -> Iterator[threading.Event]:
        """Register a request while it generates images; yields an event that `stop` sets."""
        stop = threading.Event()
        self._running.append(stop)
        try:
            if self.closed:
                stop.set()
            yield stop
        finally:
            self._running.remove(stop)

    def stop(self) -> int:
        """Stop the running requests of this page; returns their number."""
        running = list(self._running)
        for event in running:
            event.set()
        return len(running)

    @property
    def empty(self) -> bool:
        """Whether the page has no people, files or running requests."""
        return not (self.people or self.folders or self._running)


class Sessions:
    """All open pages by Gradio's session hash, and the files of their visitors.

    Every file is in a folder of its own with a name that cannot be guessed. A page owns the folders of its uploads and
    results; a folder is deleted when the last page that owns it is closed.

    Args:
        folder: Holds the files of visitors, and nothing else.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._sessions: dict[str, Session] = {}
        self._lock = threading.RLock()

    def __contains__(self, key: str) -> bool:
        return key in self._sessions

    def open(self, key: str | None) -> Session:
        """The session of a page; a new one at its first request."""
        if not key:
            raise DemoError("The request has no session hash; gradio_client adds one.")
        with self._lock:
            if key not in self._sessions and len(self._sessions) >= MAX_SESSIONS:
                self._sessions = {k: s for k, s in self._sessions.items() if not s.empty}
                if len(self._sessions) >= MAX_SESSIONS:
                    raise DemoError("Too many pages of this demo are open. Try again later.")
            session = self._sessions.setdefault(key, Session())
            session.last_used = time.monotonic()
            return session

    def new_folder(self) -> Path:
        """Make a folder for one file; raises DemoError if the files of all visitors take too much space."""
        if _bytes_in(self.folder) > MAX_STORED:
            raise DemoError("The demo has no space for more files. Try again later.")
        folder = self.folder / uuid.uuid4().hex
        folder.mkdir(parents=True)
        return folder

    def new_file(self, name: str, session: Session) -> Path:
        """Path of a new file that this page can fetch; raises StoppedError if the page was closed."""
        folder = self.new_folder()
        with self._lock:
            if session.closed:
                raise StoppedError("The page was closed.")
            session.folders.add(folder)
        return folder / name

    def keep(self, session: Session, files: Iterable[str | Path]) -> None:
        """Make a page an owner of these files; files outside the folder of visitors are ignored."""
        with self._lock:
            if session.closed:
                raise StoppedError("The page was closed.")
            for file in files:
                path = Path(os.path.abspath(file))
                if path.is_relative_to(self.folder) and path != self.folder:
                    session.folders.add(self.folder / path.relative_to(self.folder).parts[0])

    def close(self, key: str | None) -> None:
        """Stop the requests of a page and delete its people and files."""
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
        """Close pages without a request in the last hour, and delete older files that no page owns.

        Args:
            waiting: Session hashes of pages that have a request in the queue; these stay open.
        """
        with self._lock:
            now = time.monotonic()
            idle = [key for key, s in self._sessions.items() if now - s.last_used > MAX_IDLE_SECONDS]
            for key in set(idle) - set(waiting):
                self.close(key)
            owned = self._owned()
            for folder in self.folder.iterdir():
                with suppress(OSError):  # an upload in progress may remove it
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
