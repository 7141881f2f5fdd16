"""Which requests may join the queue: what they may carry, and how many of a page may wait."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..errors import DemoError, IdgenError
from .sessions import Sessions

MAX_WAITING = 64
"""Requests in the queue; further ones are refused."""

MAX_WAITING_OF_ONE = 16
"""Requests of one page in the queue."""


class Admission:
    """Asked before a request joins Gradio's queue.

    The files that a request names belong to its page from then on, so that they are not deleted when another visitor
    leaves.

    Args:
        queue: Gradio's.
        sessions: Of all pages.
        folder: Gradio's own, where uploads lie.
    """

    def __init__(self, queue: Any, sessions: Sessions, folder: Path) -> None:
        self.queue, self.sessions, self.folder = queue, sessions, folder
        self._push = queue.push
        queue.push = self.push

    async def push(self, body: Any, request: Any, username: str | None) -> tuple[bool, Any, str]:
        """Let the request join the queue, or say why not; stands in for the queue's own."""
        body.session_hash = body.session_hash or secrets.token_hex(16)
        try:
            files = named_files(body.data, self.folder)
            if self.waiting().count(body.session_hash) >= MAX_WAITING_OF_ONE:
                told = f"{MAX_WAITING_OF_ONE} requests of this page are waiting already; more can follow later."
                return False, told, "queue_full"
            self.sessions.keep(self.sessions.open(body.session_hash), files)
        except IdgenError as error:
            return False, str(error), "error"
        return await self._push(body, request, username)

    def waiting(self) -> list[str]:
        """The sessions of the requests in the queue, and of those that are answered now."""
        active = [event for events in self.queue.active_jobs for event in events or ()]
        queued = [event for line in self.queue.event_queue_per_concurrency_id.values() for event in line.queue]
        return [event.session_hash for event in (*active, *queued)]


def named_files(data: Any, folder: Path) -> list[str]:
    """The files in the values of a request.

    Raises:
        DemoError: One is not an upload: it lies on another server, which would be asked for it, or elsewhere on this
            computer, or is written into the request.
    """
    files = []
    for part in _parts(data):
        path, url = part.get("path"), part.get("url")
        if isinstance(url, str) and url.startswith("data:"):
            raise DemoError("Files are uploaded first; they cannot stand in a request.")
        if isinstance(path, str):
            if not Path(os.path.abspath(path)).is_relative_to(folder):
                raise DemoError("Files are uploaded first; a request cannot name a file that lies elsewhere.")
            files.append(path)
    return files


def _parts(data: Any) -> Iterator[dict[str, Any]]:
    """All dictionaries in what JSON can hold."""
    stack = [data]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            yield value
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
