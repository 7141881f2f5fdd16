"""Access rules, checked before any work: host, origin and size of requests, and the events that may join the queue."""

from __future__ import annotations

import ipaddress
import os
import secrets
import socket
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from ..errors import DemoError, IdgenError
from .sessions import Sessions

MAX_BODY = 2**20
"""Maximum bytes of a request that uploads nothing."""

MAX_WAITING = 64
"""Maximum requests in the queue."""

MAX_WAITING_PER_PAGE = 16
"""Maximum requests of one page in the queue."""

LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})
ALL_INTERFACES = frozenset({"0.0.0.0", "::"})


class RequestFilter:
    """ASGI middleware that refuses requests for another host, requests from another site's pages, and large requests.

    A page of another site can reach this server through the visitor's browser, also by a name of its own that it has
    resolved to this computer's address ("DNS rebinding"). Its requests name that site in `Origin`, or in `Host`.

    Args:
        app: The application.
        listening: Address that the server listens at. If it stands for all interfaces, any numeric address is accepted
            as the host, which another site cannot take for itself, and so is this computer's name.
        allowed: Further host names that are accepted.
        max_upload: Maximum bytes of a request that uploads files.
    """

    def __init__(self, app: ASGIApp, listening: str, allowed: Collection[str], max_upload: int) -> None:
        self.app, self.max_upload = app, max_upload
        self.allowed = frozenset(name.lower() for name in allowed)
        self.on_all_interfaces = listening in ALL_INTERFACES
        own = socket.gethostname() if self.on_all_interfaces else listening
        self.hosts = LOOPBACK | self.allowed | {own.lower()}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Refuse a request, or pass it on."""
        refusal = self.refusal(scope) if scope["type"] in ("http", "websocket") else None
        if refusal is None:
            await self.app(scope, receive, send)
        else:
            status, reason = refusal
            await PlainTextResponse(reason, status)(scope, receive, send)

    def refusal(self, scope: Scope) -> tuple[int, str] | None:
        """HTTP status and reason, or None if the request is accepted."""
        headers, path = Headers(scope=scope), scope["path"]
        host, origin = headers.get("host", ""), headers.get("origin")
        if not self._is_accepted(f"//{host}"):
            return 421, "This host name is not accepted. Start the demo with --allow-host NAME to accept it."
        if origin is not None and urlsplit(origin).netloc != host and _hostname(origin) not in self.allowed:
            return 403, "Requests from pages of other sites are refused."
        if "=" in path and "://" in unquote(path):
            return 403, "This server fetches nothing from other servers."
        if headers.get("transfer-encoding"):
            return 411, "The request must give its length."
        length = headers.get("content-length", "0")
        limit = self.max_upload if path.rstrip("/").endswith(("/upload", "/component_server")) else MAX_BODY
        if not length.isdecimal() or len(length) > 12 or int(length) > limit:
            return 413, f"A request can have at most {limit:,} bytes."
        return None

    def _is_accepted(self, url: str) -> bool:
        name = _hostname(url)
        return name in self.hosts or (self.on_all_interfaces and _is_address(name))


def _hostname(url: str) -> str:
    try:
        return urlsplit(url).hostname or ""
    except ValueError:
        return ""


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


class QueueFilter:
    """Checks requests before they join Gradio's queue.

    The session of a request owns the files that the request names from then on, so that they are not deleted when
    another visitor leaves.

    Args:
        queue: Gradio's queue; its `push` is replaced.
        sessions: All open pages.
        folder: Gradio's folder, which holds the uploads.
    """

    def __init__(self, queue: Any, sessions: Sessions, folder: Path) -> None:
        self.queue, self.sessions, self.folder = queue, sessions, folder
        self._push = queue.push
        queue.push = self.push

    async def push(self, body: Any, request: Any, username: str | None) -> tuple[bool, Any, str]:
        """Add a request to the queue, or return why it is refused; the signature is that of Gradio's method."""
        body.session_hash = body.session_hash or secrets.token_hex(16)
        try:
            files = named_files(body.data, self.folder)
            if self.waiting().count(body.session_hash) >= MAX_WAITING_PER_PAGE:
                message = f"{MAX_WAITING_PER_PAGE} requests of this page are waiting already. Try again later."
                return False, message, "queue_full"
            self.sessions.keep(self.sessions.open(body.session_hash), files)
        except IdgenError as error:
            return False, str(error), "error"
        return await self._push(body, request, username)

    def waiting(self) -> list[str]:
        """Session hashes of the requests that are in the queue or being answered."""
        active = [event for events in self.queue.active_jobs for event in events or ()]
        queued = [event for line in self.queue.event_queue_per_concurrency_id.values() for event in line.queue]
        return [event.session_hash for event in (*active, *queued)]


def named_files(data: Any, folder: Path) -> list[str]:
    """Paths of the files in the values of a request.

    Raises:
        DemoError: A file is not an upload: it is on another server, elsewhere on this computer, or inside the request.
    """
    files = []
    for part in _dictionaries(data):
        path, url = part.get("path"), part.get("url")
        if isinstance(url, str) and url.startswith("data:"):
            raise DemoError("Upload files first; a request cannot contain a file.")
        if isinstance(path, str):
            if not Path(os.path.abspath(path)).is_relative_to(folder):
                raise DemoError("Upload files first; a request can only name uploaded files.")
            files.append(path)
    return files


def _dictionaries(data: Any) -> Iterator[dict[str, Any]]:
    """All dictionaries in a JSON value."""
    stack = [data]
    while stack:
        value = stack.pop()
        if isinstance(value, dict):
            yield value
            stack.extend(value.values())
        elif isinstance(value, list):
            stack.extend(value)
